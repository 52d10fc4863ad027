// The monitor as a process of its own: one for a pool.
import { enableCompileCache } from 'node:module';
import { resolve } from 'node:path';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { joinCluster, needServiceNbd } = await import('@midmirror/cluster');
const { exportUri } = await import('@midmirror/nbd');
const { runService, webhookOptions } = await import('@midmirror/service');
const { Monitor } = await import('./monitor.ts');

const options = { job: true, withoutNats: 'stops', withoutPostgres: 'stops' } as const;
runService('monitor', process.env, options, async (edges) => {
  const webhook = webhookOptions(edges.config);
  const cluster = joinCluster(edges, { nbd: null });
  const monitor = new Monitor({
    ...edges,
    stateDirectory: `${resolve(edges.config.MIM_DATA_DIR)}/monitor`,
    webhook,
    exportUri: (name) => exportUri(needServiceNbd(cluster, 'mapping-index'), name),
    liveUri: (name) => exportUri(needServiceNbd(cluster, 'ingest'), name),
  });
  await monitor.start();
  return {
    says: webhook === null ? {} : { webhook: new URL(webhook.url).origin },
    async stop() {
      await monitor.stop();
      await cluster.stop();
    },
  };
});
