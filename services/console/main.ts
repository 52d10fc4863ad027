// The console as a process of its own: the HTTP API over a cluster.
import { enableCompileCache } from 'node:module';
import type { NbdAddress } from '@midmirror/nbd';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { joinCluster, needServiceNbd, serviceNbd } = await import('@midmirror/cluster');
const { parseNbdUri, serverUri } = await import('@midmirror/nbd');
const { runService, VERSION } = await import('@midmirror/service');
const { startConsole } = await import('./console.ts');
const { whyNotReady } = await import('./readiness.ts');

const options = { job: false, withoutNats: 'stops', withoutPostgres: 'stops' } as const;
runService('console', process.env, options, async (edges) => {
  const { config } = edges;
  const cluster = joinCluster(edges, { nbd: null });
  const addressOf = (service: string): NbdAddress => parseNbdUri(needServiceNbd(cluster, service)).address;
  // Guests may be elsewhere than the services, and have another address for the disks.
  const told = config.MIM_NBD_ADVERTISE;
  const nbdUri = (): string | null => (told === null ? serviceNbd(cluster, 'ingest') : serverUri(told));
  const console = await startConsole(
    {
      ...{ ...edges, nbdUri, version: VERSION },
      ...{ readFrom: () => addressOf('mapping-index'), readLiveFrom: () => addressOf('ingest') },
    },
    config.MIM_API_LISTEN,
  );
  edges.telemetry.ready(() => whyNotReady(edges));
  return {
    says: { 'API (HTTP)': `${console.address}/v1` },
    async stop() {
      await console.close();
      await cluster.stop();
    },
  };
});
