// All services in one process on the embedded adapters: one catalogue file, which is the bus too, one pool.
import { resolve } from 'node:path';
import { type Clock, MidmirrorError, messageOf } from '@midmirror/basis';
import type { ExportDirectory } from '@midmirror/block-device';
import { openEmbeddedBus } from '@midmirror/bus';
import { type Catalog, openEmbeddedCatalog } from '@midmirror/catalog';
import { startConsole } from '@midmirror/console';
import { Ingest, ingestDefaults } from '@midmirror/ingest';
import { MappingIndex } from '@midmirror/mapping-index';
import { serverUri, startNbdServer } from '@midmirror/nbd';
import { nodeFiles, type PoolFiles, soleWriter } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { lockDirectory } from '@midmirror/runtime';
import { Synchronizer } from '@midmirror/synchronizer';
import type { Telemetry } from '@midmirror/telemetry';
import type { ApplianceConfig } from './config.ts';

export const VERSION = '0.1.0';
const NBD_DEADLINE_MS = 3000;

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

export async function startAppliance(config: ApplianceConfig, edges: ApplianceEdges): Promise<Appliance> {
  const { clock, log, reached, telemetry } = edges;
  let started = false;
  telemetry.ready(() => (started ? [] : ['the appliance is starting']));
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
    await refuseLostCatalog(files, dataDirectory);
    const catalog = await openEmbeddedCatalog(`${dataDirectory}/catalog.db`);
    closing.push(() => catalog.close());
    const bus = openEmbeddedBus(catalog);
    closing.push(() => bus.close());
    const ingestConfig = {
      ...ingestDefaults,
      syncIntervalMs: config.MIM_SYNC_INTERVAL_MS,
      segmentBytes: config.MIM_SEGMENT_BYTES,
      journalBytesMax: config.MIM_JOURNAL_BYTES,
      headMapBytesMax: config.MIM_HEAD_MAP_BYTES,
    };
    telemetry.ready(() => whyUnreadable(catalog));
    const shared = { files, catalog, bus, clock, poolDirectory, log, telemetry };
    const pages = new PageCache(catalog.db, config.MIM_INDEX_CACHE_BYTES);
    const ingest = new Ingest(poolDirectory, {
      ...shared,
      pages,
      config: ingestConfig,
      writer: soleWriter(),
      reached: (place) => reached(`journal:${place}`),
    });
    const mapping = new MappingIndex({
      ...shared,
      pages,
      syncIntervalMs: ingestConfig.syncIntervalMs,
      requestBytesMax: ingestConfig.requestBytesMax,
    });
    const synchronizer = new Synchronizer({ ...shared, reached: (step) => reached(`sync:${step}`) });
    await ingest.start();
    closing.push(() => ingest.stop());
    await mapping.start();
    closing.push(() => mapping.stop());
    await synchronizer.start();
    closing.push(() => synchronizer.stop());
    await logUnknown(files, catalog, poolDirectory, log);
    const nbd = await startNbdServer({
      listen: config.MIM_NBD_LISTEN,
      directory: exportsOf(ingest, mapping),
      onError: (error) => log(`NBD: ${error instanceof Error ? error.message : String(error)}`),
    });
    closing.push(() => nbd.close(NBD_DEADLINE_MS));
    const nbdUri = serverUri(nbd.address);
    const console = await startConsole(
      { ...shared, readFrom: () => nbd.address, nbdUri: () => nbdUri, version: VERSION },
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

async function whyUnreadable(catalog: Catalog): Promise<string[]> {
  try {
    await catalog.db.selectFrom('volume').select('id').limit(1).execute();
    return [];
  } catch (error) {
    return [`the catalogue can't be read: ${messageOf(error)}`];
  }
}

/** A name with an `@` is a past point; a clone's name is the clone; any other is a volume. */
function exportsOf(ingest: Ingest, mapping: MappingIndex): ExportDirectory {
  return {
    open: (name) => (name.includes('@') || mapping.clones.has(name) ? mapping.open(name) : ingest.open(name)),
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

async function logUnknown(
  files: PoolFiles,
  catalog: Catalog,
  poolDirectory: string,
  log: (message: string) => void,
): Promise<void> {
  const known = new Set((await catalog.db.selectFrom('volume').select('id').execute()).map((row) => row.id));
  for (const row of await catalog.db.selectFrom('clone').select('id').execute()) known.add(row.id);
  for (const folder of ['volumes', 'clones']) {
    for (const id of await files.list(`${poolDirectory}/${folder}`)) {
      if (!known.has(id))
        log(
          `${poolDirectory}/${folder}/${id} is not in the catalogue and is left alone; \`mim rebuild\` takes it in`,
        );
    }
  }
}
