// All services in one process: one pool, one catalogue file, which is the bus too, unless it is told of PostgreSQL and NATS.
import { resolve } from 'node:path';
import { type Clock, MidmirrorError } from '@midmirror/basis';
import type { ExportDirectory } from '@midmirror/block-device';
import { type Bus, openEmbeddedBus, openNatsBus } from '@midmirror/bus';
import { type Catalog, openEmbeddedCatalog, openPostgresCatalog } from '@midmirror/catalog';
import { startConsole } from '@midmirror/console';
import { checkPool, Ingest, ingestConfigOf } from '@midmirror/ingest';
import { MappingIndex } from '@midmirror/mapping-index';
import { Monitor } from '@midmirror/monitor';
import { exportUri, serverUri, startNbdServer } from '@midmirror/nbd';
import { nodeFiles, type PoolFiles, soleWriter } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { lockDirectory } from '@midmirror/runtime';
import {
  type Config,
  natsOptions,
  natsStreamLimits,
  serviceLimits,
  tellOfServers,
  VERSION,
  webhookOptions,
} from '@midmirror/service';
import { Synchronizer } from '@midmirror/synchronizer';
import { TapeArchiver, tapeProcesses } from '@midmirror/tape-archiver';
import type { Telemetry } from '@midmirror/telemetry';

export interface Appliance {
  readonly nbdUri: string;
  readonly api: string;
  readonly dataDirectory: string;
  readonly volumes: number;
  /** Lets requests end, makes everything durable, closes. */
  stop(): Promise<void>;
}

export interface ApplianceEdges {
  clock: Clock;
  log: (message: string) => void;
  /** Called at the named places of ingest and of each sync step. */
  reached: (place: string) => void;
  telemetry: Telemetry;
}

export async function startAppliance(config: Config, edges: ApplianceEdges): Promise<Appliance> {
  const { clock, log, reached, telemetry } = edges;
  let started = false;
  telemetry.ready(() => (started ? [] : ['the appliance is starting']));
  const webhook = webhookOptions(config);
  const dataDirectory = resolve(config.MIM_DATA_DIR);
  const poolDirectory = `${dataDirectory}/pool`;
  const files = nodeFiles();
  await files.makeDirectory(poolDirectory);
  const lock = lockDirectory(dataDirectory);
  // What was opened is closed in the opposite order, also when a later part can't start.
  const closing: (() => Promise<void> | void)[] = [() => lock.release()];
  const stop = async (): Promise<void> => {
    for (let close = closing.pop(); close !== undefined; close = closing.pop()) await close();
  };
  try {
    const catalog = await openCatalog(config, files, dataDirectory);
    closing.push(() => catalog.close());
    const bus = openBus(config, catalog, log);
    closing.push(() => bus.close());
    const ingestConfig = ingestConfigOf(config);
    tellOfServers(telemetry, {
      catalog,
      // A file that can't be read is damage; a server that is away comes back, and guests go on until then (I6).
      catalogAway: config.MIM_POSTGRES_URL === '' ? 'stops' : 'goes on',
      bus: config.MIM_NATS_URL === '' ? null : bus,
      busAway: 'goes on',
    });
    const shared = { files, catalog, bus, clock, poolDirectory, log, telemetry };
    const pages = new PageCache(catalog.db, config.MIM_INDEX_CACHE_BYTES);
    const ingest = new Ingest(poolDirectory, {
      ...shared,
      pages,
      config: ingestConfig,
      writer: soleWriter(),
      readerLeaseMs: config.MIM_LEASE_MS,
      reached: (place) => reached(`journal:${place}`),
    });
    const mapping = new MappingIndex({
      ...shared,
      pages,
      syncIntervalMs: ingestConfig.syncIntervalMs,
      requestBytesMax: ingestConfig.requestBytesMax,
    });
    const synchronizer = new Synchronizer({
      ...shared,
      leaseMs: config.MIM_LEASE_MS,
      reached: (step) => reached(`sync:${step}`),
    });
    await checkPool(shared);
    await ingest.start();
    closing.push(() => ingest.stop());
    await mapping.start();
    closing.push(() => mapping.stop());
    await synchronizer.start();
    closing.push(() => synchronizer.stop());
    const nbd = await startNbdServer({
      listen: config.MIM_NBD_LISTEN,
      directory: exportsOf(ingest, mapping),
      onError: (error) => log(`NBD: ${error instanceof Error ? error.message : String(error)}`),
    });
    closing.push(() => nbd.close(serviceLimits.nbdStopMsMax));
    const nbdUri = serverUri(nbd.address);
    const tapes = new TapeArchiver({
      ...shared,
      pointUri: (volumeId, seq) => exportUri(nbdUri, `${volumeId}@seq:${seq}`),
      defaultLibrary: config.MIM_TAPE_LIBRARY,
      openLibrary: tapeProcesses(config, log),
      reached: (place) => reached(`tape:${place}`),
    });
    await tapes.start();
    closing.push(() => tapes.stop());
    const monitor = new Monitor({
      ...shared,
      webhook,
      stateDirectory: `${dataDirectory}/monitor`,
      exportUri: (name) => exportUri(nbdUri, name),
      liveUri: (name) => exportUri(nbdUri, name),
    });
    await monitor.start();
    closing.push(() => monitor.stop());
    const console = await startConsole(
      {
        ...{ ...shared, nbdUri: () => nbdUri, version: VERSION },
        ...{ readFrom: () => nbd.address, readLiveFrom: () => nbd.address },
      },
      config.MIM_API_LISTEN,
    );
    closing.push(() => console.close());
    const volumes = (await catalog.db.selectFrom('volume').select('id').execute()).length;
    started = true;
    return { nbdUri, api: console.address, dataDirectory, volumes, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function openCatalog(config: Config, files: PoolFiles, dataDirectory: string): Promise<Catalog> {
  if (config.MIM_POSTGRES_URL !== '')
    return await openPostgresCatalog(config.MIM_POSTGRES_URL, { poolMax: config.MIM_POSTGRES_POOL });
  await refuseLostCatalog(files, dataDirectory);
  return await openEmbeddedCatalog(`${dataDirectory}/catalog.db`);
}

function openBus(config: Config, catalog: Catalog, log: (message: string) => void): Bus {
  if (config.MIM_NATS_URL === '') return openEmbeddedBus(catalog);
  return openNatsBus({
    ...{ ...natsOptions(config, 'midmirror'), ...natsStreamLimits(config) },
    ...{ catalog, log },
  });
}

/** A name with an `@` is a past point; a clone's name is the clone; any other is a volume. */
function exportsOf(ingest: Ingest, mapping: MappingIndex): ExportDirectory {
  return {
    open: (name, contexts, peer) =>
      name.includes('@') || mapping.clones.has(name) ? mapping.open(name) : ingest.open(name, contexts, peer),
    list: async () => [...(await ingest.list()), ...(await mapping.list())],
  };
}

/** An empty catalogue over a full pool would make the volumes look gone. */
async function refuseLostCatalog(files: PoolFiles, dataDirectory: string): Promise<void> {
  if (await files.exists(`${dataDirectory}/catalog.db`)) return;
  const volumes = await files.list(`${dataDirectory}/pool/volumes`);
  if (volumes.length === 0) return;
  throw new MidmirrorError(
    'corrupt',
    `${dataDirectory}/catalog.db is gone, and the pool holds ${volumes.length} volumes`,
    {
      hint: `run \`npx mim rebuild --data-dir ${dataDirectory}\`: it makes the catalogue again from the pool`,
    },
  );
}
