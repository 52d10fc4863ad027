// The console as a process of its own: the HTTP API over a cluster.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { MidmirrorError } = await import('@midmirror/basis');
const { openCluster } = await import('@midmirror/cluster');
const { parseNbdUri } = await import('@midmirror/nbd');
const { natsOptions, runService, VERSION } = await import('@midmirror/service');
const { startConsole } = await import('./console.ts');

const options = { job: false, withoutNats: 'stops', withoutPostgres: 'stops' } as const;
runService('console', process.env, options, async (edges) => {
  const { config, node, log } = edges;
  const cluster = openCluster({
    nats: { ...natsOptions(config, `midmirror-console-${node}-nodes`), log },
    ...{ service: 'console', node, nbd: null, http: null, version: VERSION },
    ...{ leaseMs: config.MIM_LEASE_MS, monotonicMs: () => performance.now(), log },
  });
  /** Of those that live, the first in the order of their names. */
  const nbdOf = (service: string): string => {
    const found = cluster.nodes(service).find(({ nbd }) => nbd !== null);
    if (found?.nbd == null)
      throw new MidmirrorError('unavailable', `no ${service} is there`, {
        hint: 'see whether its process runs and reaches NATS; /readyz of its metrics address tells',
      });
    return found.nbd;
  };
  const console = await startConsole(
    {
      ...edges,
      nbdUri: () => nbdOf('ingest'),
      readFrom: () => parseNbdUri(nbdOf('mapping-index')).address,
      version: VERSION,
    },
    config.MIM_API_LISTEN,
  );
  return {
    says: { 'API (HTTP)': `${console.address}/v1` },
    async stop() {
      await console.close();
      await cluster.stop();
    },
  };
});
