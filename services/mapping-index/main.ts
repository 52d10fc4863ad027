// The mapping index as a process of its own: one for a pool. Its NBD server has past points and clones.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { messageOf } = await import('@midmirror/basis');
const { joinCluster } = await import('@midmirror/cluster');
const { nbdLimits, startNbdServer } = await import('@midmirror/nbd');
const { PageCache } = await import('@midmirror/runs');
const { advertisedUri, runService, serviceLimits } = await import('@midmirror/service');
const { MappingIndex } = await import('./mapping-index.ts');

// Open points and clones need no NATS; where their bytes are is in the catalogue.
const options = { job: true, withoutNats: 'goes on', withoutPostgres: 'stops' } as const;
runService('mapping-index', process.env, options, async (edges) => {
  const { config, catalog, log } = edges;
  const mapping = new MappingIndex({
    ...edges,
    syncIntervalMs: config.MIM_SYNC_INTERVAL_MS,
    requestBytesMax: nbdLimits.requestBytesMax,
    pages: new PageCache(catalog.db, config.MIM_INDEX_CACHE_BYTES),
  });
  await mapping.start();
  const nbd = await startNbdServer({
    listen: config.MIM_NBD_LISTEN,
    directory: mapping,
    onError: (error) => log(`NBD: ${messageOf(error)}`),
  });
  const nbdUri = advertisedUri(config, nbd.address);
  const cluster = joinCluster(edges, { nbd: nbdUri });
  return {
    says: { 'mirrors (NBD)': nbdUri },
    async stop() {
      await nbd.close(serviceLimits.nbdStopMsMax);
      await mapping.stop();
      await cluster.stop();
    },
  };
});
