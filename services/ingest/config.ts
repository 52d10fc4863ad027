// What ingest can be told, with bounds; names are those of the environment without the prefix.

import type { Config } from '@midmirror/service';

export interface IngestConfig {
  syncIntervalMs: number;
  segmentBytes: number;
  journalBytesMax: number;
  requestBytesMax: number;
  /** Of the head maps of all volumes together. */
  headMapBytesMax: number;
  /** Default: for a bus in the same process, where a message takes a commit of its loop. */
  publishRestMs?: number;
}

export const ingestDefaults: IngestConfig = {
  syncIntervalMs: 100,
  segmentBytes: 64 << 20,
  journalBytesMax: 10 * 2 ** 30,
  requestBytesMax: 32 << 20,
  headMapBytesMax: 48 << 20,
};

export function ingestConfigOf(config: Config): IngestConfig {
  return {
    ...ingestDefaults,
    syncIntervalMs: config.MIM_SYNC_INTERVAL_MS,
    segmentBytes: config.MIM_SEGMENT_BYTES,
    journalBytesMax: config.MIM_JOURNAL_BYTES,
    headMapBytesMax: config.MIM_HEAD_MAP_BYTES,
  };
}
