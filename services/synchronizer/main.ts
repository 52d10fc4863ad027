// The synchronizer as a process of its own: one for a pool.
import { enableCompileCache } from 'node:module';

// Before the rest is loaded: what Node has compiled once it need not compile again.
enableCompileCache();
const { runService } = await import('@midmirror/service');
const { Synchronizer } = await import('./synchronizer.ts');

const options = { job: true, withoutNats: 'stops', withoutPostgres: 'stops' } as const;
runService('synchronizer', process.env, options, async (edges) => {
  const { config, reached, ...shared } = edges;
  const synchronizer = new Synchronizer({
    ...shared,
    leaseMs: config.MIM_LEASE_MS,
    reached: (step) => reached(`sync:${step}`),
  });
  await synchronizer.start();
  return { says: {}, stop: () => synchronizer.stop() };
});
