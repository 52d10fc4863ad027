// What the parts of the monitor share.
import type { Clock } from '@midmirror/basis';
import type { Bus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import type { Telemetry } from '@midmirror/telemetry';
import type { WebhookOptions } from './webhook.ts';

export interface MonitorContext {
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  telemetry: Telemetry;
  log: (message: string) => void;
  /** NBD URI of an export of a past point. Throws `unavailable` while nobody serves them. */
  exportUri: (name: string) => string;
  /** NBD URI of a live volume. Throws `unavailable` while nobody serves them. */
  liveUri: (name: string) => string;
  /** Where checks run and mirrors are mounted; of this process alone. */
  stateDirectory: string;
  /** Who is told of condemned points and lost tapes; null: nobody. */
  webhook: WebhookOptions | null;
}

export const SOURCE = '/midmirror/monitor';
