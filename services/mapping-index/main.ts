// The mapping index as a process of its own: one for a pool. Its NBD server has past points and clones.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { hostname } = await import('node:os');
const { messageOf } = await import('@midmirror/basis');
const { openCluster } = await import('@midmirror/cluster');
const { nbdLimits, serverUri, startNbdServer } = await import('@midmirror/nbd');
const { PageCache } = await import('@midmirror/runs');
const { natsOptions, nbdAddressFor, runService, serviceLimits, VERSION } = await import('@midmirror/service');
const { MappingIndex } = await import('./mapping-index.ts');

// Open points and clones need no NATS; where their bytes are is in the catalogue.
const options = { job: true, withoutNats: 'goes on', withoutPostgres: 'stops' } as const;
runService('mapping-index', process.env, options, async (edges) => {
  const { config, node, catalog, log } = edges;
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
  const nbdUri = serverUri(nbdAddressFor(nbd.address, config.MIM_NBD_ADVERTISE, hostname()));
  const cluster = openCluster({
    nats: { ...natsOptions(config, `midmirror-mapping-index-${node}-nodes`), log },
    ...{ service: 'mapping-index', node, nbd: nbdUri, http: null, version: VERSION },
    ...{ leaseMs: config.MIM_LEASE_MS, replicas: config.MIM_NATS_REPLICAS },
    ...{ monotonicMs: () => performance.now(), log },
  });
  return {
    says: { 'mirrors (NBD)': nbdUri },
    async stop() {
      await nbd.close(serviceLimits.nbdStopMsMax);
      await mapping.stop();
      await cluster.stop();
    },
  };
});
