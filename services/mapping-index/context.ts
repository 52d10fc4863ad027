// What the mapping index stands on.
import type { Clock } from '@midmirror/basis';
import type { Bus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import type { PoolFiles } from '@midmirror/pool';
import type { PageCache } from '@midmirror/runs';
import type { Telemetry } from '@midmirror/telemetry';

export interface MappingIndexContext {
  files: PoolFiles;
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  /** Goes on while the process is stopped. Default: that of this process. */
  monotonicMs?: () => number;
  poolDirectory: string;
  syncIntervalMs: number;
  requestBytesMax: number;
  /** Pages of runs in memory, shared with whoever else reads runs. */
  pages: PageCache;
  log: (message: string) => void;
  telemetry: Telemetry;
}
