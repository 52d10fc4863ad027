// The tape archiver as a process of its own: one for a pool.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { joinCluster, needServiceNbd } = await import('@midmirror/cluster');
const { exportUri } = await import('@midmirror/nbd');
const { runService } = await import('@midmirror/service');
const { tapeProcesses } = await import('./tape-processes.ts');
const { TapeArchiver } = await import('./tape-archiver.ts');

const options = { job: true, withoutNats: 'stops', withoutPostgres: 'stops' } as const;
runService('tape-archiver', process.env, options, async (edges) => {
  const { config, log, reached } = edges;
  const cluster = joinCluster(edges, { nbd: null });
  const archiver = new TapeArchiver({
    ...edges,
    reached: (place) => reached(`tape:${place}`),
    defaultLibrary: config.MIM_TAPE_LIBRARY,
    openLibrary: tapeProcesses(config, log),
    pointUri: (volumeId, seq) =>
      exportUri(needServiceNbd(cluster, 'mapping-index'), `${volumeId}@seq:${seq}`),
  });
  await archiver.start();
  return {
    says: { tapes: config.MIM_TAPE_LIBRARY === '' ? 'none named' : config.MIM_TAPE_LIBRARY },
    async stop() {
      await archiver.stop();
      await cluster.stop();
    },
  };
});
