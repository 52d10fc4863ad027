// The services that store and serve, all in one process on one file layer and one catalogue: what simulations and the
// soak run.
import type { Clock } from '@midmirror/basis';
import { type Bus, openEmbeddedBus } from '@midmirror/bus';
import type { Catalog } from '@midmirror/catalog';
import { Ingest } from '@midmirror/ingest';
import { MappingIndex } from '@midmirror/mapping-index';
import { type PoolFiles, soleWriter } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { Synchronizer } from '@midmirror/synchronizer';
import { silent } from '@midmirror/telemetry';

export interface Services {
  catalog: Catalog;
  bus: Bus;
  ingest: Ingest;
  mapping: MappingIndex;
  synchronizer: Synchronizer;
}

export interface ServicesOptions {
  files: PoolFiles;
  poolDirectory: string;
  openCatalog: () => Promise<Catalog>;
  /** Stands in the catalogue's place; tests see there what is read. */
  watched?: (catalog: Catalog) => Catalog;
  /** Default: the embedded one. */
  openBus?: (catalog: Catalog) => Bus;
  clock: Clock;
  log: (message: string) => void;
  /** Called at the named places of ingest and of each sync step. */
  reached: (place: string) => void;
  segmentBytes: number;
  journalBytesMax: number;
  requestBytesMax: number;
  indexCacheBytes: number;
  headMapBytesMax: number;
  /** How long readers may leave a request of the synchronizer unanswered. */
  leaseMs?: number;
}

const READER_LEASE_MS = 5000;

/** Opened, not started. */
export async function openServices(options: ServicesOptions): Promise<Services> {
  const { files, poolDirectory, clock, log, reached } = options;
  const { segmentBytes, journalBytesMax, requestBytesMax, headMapBytesMax } = options;
  const opened = await options.openCatalog();
  const catalog = options.watched?.(opened) ?? opened;
  const bus = (options.openBus ?? openEmbeddedBus)(catalog);
  const shared = { files, catalog, bus, clock, poolDirectory, log, telemetry: silent };
  const config = {
    syncIntervalMs: 3_600_000,
    ...{ segmentBytes, journalBytesMax, requestBytesMax, headMapBytesMax },
  };
  const pages = new PageCache(catalog.db, options.indexCacheBytes);
  const ingest = new Ingest(poolDirectory, {
    ...shared,
    config,
    writer: soleWriter(),
    pages,
    readerLeaseMs: READER_LEASE_MS,
    reached: (place) => reached(`journal:${place}`),
  });
  const { syncIntervalMs } = config;
  const mapping = new MappingIndex({ ...shared, syncIntervalMs, requestBytesMax, pages });
  const synchronizer = new Synchronizer({
    ...shared,
    ...(options.leaseMs === undefined ? {} : { leaseMs: options.leaseMs }),
    reached: (step) => reached(`sync:${step}`),
  });
  return { catalog, bus, ingest, mapping, synchronizer };
}

export async function startServices({ ingest, mapping, synchronizer }: Services): Promise<void> {
  await ingest.start();
  await mapping.start();
  await synchronizer.start();
}

export async function stopServices(services: Services): Promise<void> {
  const { catalog, bus, ingest, mapping, synchronizer } = services;
  await synchronizer.stop();
  await mapping.stop();
  await ingest.stop();
  await bus.close();
  await catalog.close();
}
