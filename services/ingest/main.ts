// Ingest as a process of its own: one of several on a pool, each the owner of some of its volumes.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { joinCluster } = await import('@midmirror/cluster');
const { startNbdServer } = await import('@midmirror/nbd');
const { PageCache } = await import('@midmirror/runs');
const { advertisedUri, runService, serviceLimits } = await import('@midmirror/service');
const { setTimeout: pause } = await import('node:timers/promises');
const { messageOf } = await import('@midmirror/basis');
const { ClusterExports } = await import('./cluster-exports.ts');
const { ingestConfigOf } = await import('./config.ts');
const { Ingest } = await import('./ingest.ts');
const { limits } = await import('./limits.ts');
const { checkPool } = await import('./pool-check.ts');
const { PoolNames } = await import('./pool-names.ts');

// Guests are served while both are away (I6).
const options = { job: false, withoutNats: 'goes on', withoutPostgres: 'goes on' } as const;
runService('ingest', process.env, options, async (edges) => {
  const { config, node, catalog, bus, files, poolDirectory, clock, telemetry, log } = edges;
  await checkPool({ files, catalog, poolDirectory, log });
  // The cluster is told where disks are served here, and they are served by what it tells: so each finds the other.
  const late: { exports: InstanceType<typeof ClusterExports> | null } = { exports: null };
  const nbd = await startNbdServer({
    listen: config.MIM_NBD_LISTEN,
    directory: {
      open: (name, contexts, peer) => started(late.exports).open(name, contexts, peer),
      list: () => started(late.exports).list(),
    },
    onError: (error) => log(`NBD: ${messageOf(error)}`),
  });
  const nbdUri = advertisedUri(config, nbd.address);
  const cluster = joinCluster(edges, {
    nbd: nbdUri,
    ownership: { take: (id) => ingest.take(id), lose: (id) => void ingest.lose(id) },
  });
  const ingest = new Ingest(
    poolDirectory,
    {
      ...{ files, catalog, bus, clock, log, telemetry },
      pages: new PageCache(catalog.db, config.MIM_INDEX_CACHE_BYTES),
      config: { ...ingestConfigOf(config), publishRestMs: limits.publishRestMsCluster },
      writer: {
        ...{ holder: `ingest ${node}`, alone: false, pause },
        monotonicMs: () => performance.now(),
      },
      reached: (place) => edges.reached(`journal:${place}`),
      readerLeaseMs: config.MIM_LEASE_MS,
    },
    cluster,
  );
  const names = new PoolNames(catalog, log, (id) => cluster.seek(id));
  await names.start();
  late.exports = new ClusterExports(ingest, names, cluster, config.MIM_LEASE_MS + limits.takeoverMsMax);
  await ingest.start();
  // Until then it takes no volume, and knows of nobody who has one: guests had better be sent elsewhere.
  let metNats = false;
  bus.ready().then(
    () => (metNats = true),
    () => {}, // it is stopping
  );
  telemetry.ready(() => (metNats ? [] : ['NATS has not been there since the start']));
  // It is cut off, and the others are not: they serve what it can neither serve nor pass on.
  telemetry.ready(() =>
    [...ingest.displaced]
      .filter(([id]) => cluster.ownerOf(id)?.self === true)
      .map(([, name]) => `volume ${name} has been taken over, and it is not heard by whom`),
  );
  return {
    says: { 'disks (NBD)': nbdUri },
    async stop() {
      await names.stop();
      await nbd.close(serviceLimits.nbdStopMsMax);
      late.exports?.close();
      await ingest.stop();
      await cluster.stop();
    },
  };
});

function started<T>(part: T | null): T {
  if (part === null) throw new Error('ingest is starting; try again');
  return part;
}
