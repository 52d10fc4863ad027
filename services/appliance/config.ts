// What the appliance is told by its environment; names, defaults and bounds.
import { bytes, type Listen, listen, off, readSettings, text, whole } from '@midmirror/runtime';

const settings = {
  /** Catalogue, lock and pool. */
  MIM_DATA_DIR: text('./data'),
  MIM_NBD_LISTEN: listen({ host: '127.0.0.1', port: 10809 } as Listen),
  MIM_API_LISTEN: listen({ host: '127.0.0.1', port: 8080 } as Listen),
  /** Where /metrics, /healthz and /readyz are served. */
  MIM_METRICS_LISTEN: off(listen({ host: '127.0.0.1', port: 9464 } as Listen)),
  /** Writes that no flush covered are on stable storage after this many milliseconds. */
  MIM_SYNC_INTERVAL_MS: whole(100, 1, 60_000),
  /** Size of a journal segment of volumes made from now on. */
  MIM_SEGMENT_BYTES: bytes(64 << 20, 36 << 20, 1 << 30),
  /** Limit of each volume's journal; at 75 % a sync is asked for, at the limit writers wait. */
  MIM_JOURNAL_BYTES: bytes(10 * 2 ** 30, 144 << 20, 2 ** 44),
  /** Of the maps of the journals' newest extents, all volumes together; older extents are found in the index. */
  MIM_HEAD_MAP_BYTES: bytes(48 << 20, 1 << 20, 2 ** 36),
  /** Of the index's pages that are kept in memory, all volumes together. */
  MIM_INDEX_CACHE_BYTES: bytes(32 << 20, 1 << 20, 2 ** 36),
  /** The CLI's; allowed here so that a shell may export it for both. */
  MIM_API: text(''),
  /** For tests: the process kills itself when it gets there (`sync:prepared`, `journal:durable`, …). */
  MIM_TEST_CRASH_AT: text(''),
};

export type ApplianceConfig = ReturnType<typeof readConfig>;

export function readConfig(environment: Readonly<Record<string, string | undefined>>) {
  return readSettings(environment, settings);
}
