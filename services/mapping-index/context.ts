// What the mapping index stands on.
import type { Clock } from '@midmirror/basis';
import type { Bus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import type { PoolFiles } from '@midmirror/pool';

export interface MappingIndexContext {
  files: PoolFiles;
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  poolDirectory: string;
  syncIntervalMs: number;
  requestBytesMax: number;
  /** Of pages of runs in memory. */
  indexCacheBytes: number;
  log: (message: string) => void;
}
