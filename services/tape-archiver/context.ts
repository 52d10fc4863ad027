// What the parts of the tape archiver share.
import type { Clock } from '@midmirror/basis';
import type { Bus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import type { Telemetry } from '@midmirror/telemetry';
import type { TapeCaller } from './libraries.ts';

export interface TapeArchiverContext {
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  telemetry: Telemetry;
  log: (message: string) => void;
  /** NBD URI of a past point. By id: another volume may get the name. Throws `unavailable` while nobody serves points. */
  pointUri: (volumeId: string, seq: number) => string;
  /** Where tapes are unless somebody says otherwise; empty: nowhere. */
  defaultLibrary: string;
  openLibrary: (address: string) => TapeCaller;
  /** Called at the named places of a job. */
  reached: (place: string) => void;
}

export const SOURCE = '/midmirror/tape-archiver';
