// How long a guest goes without an answer when its volume's owner dies (SIGKILL, on the same host) or hangs (SIGSTOP):
// from the signal to the first write that is answered on a new connection, at an ingest that lives on.
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { eventually, FailoverGuest } from '../cluster/cluster-under-test.ts';
import { BenchCluster } from './bench-cluster.ts';
import type { Figures } from './figures.ts';
import { median } from './measure.ts';

const VOLUME = 'db';
const SIZE_BYTES = 4 << 20;
const LEASE_MS = 5000;
const ANSWER_MS_MAX = 60_000;
/** Leases are renewed again and again: the signal comes at any moment between two of them. */
const PHASE_MS = 3000;
const WRITES_BEFORE = 20;

const ways = { killed: 'SIGKILL', stopped: 'SIGSTOP' } as const;

export async function takeoverFigures(figures: Figures, rounds: number): Promise<void> {
  const env = { MIM_LEASE_MS: String(LEASE_MS), MIM_SEGMENT_BYTES: '36MiB' };
  await BenchCluster.with(env, { ingests: 2, onSockets: false }, async (cluster) => {
    await cluster.post('/volumes', { name: VOLUME, sizeBytes: SIZE_BYTES });
    const random = new SeededRandom(11);
    const took: Record<keyof typeof ways, number[]> = { killed: [], stopped: [] };
    let model: Uint32Array<ArrayBuffer> | null = null;
    for (let round = 0; round < rounds; round += 1)
      for (const way of ['killed', 'stopped'] as const) {
        const { ms, holds } = await takenOver(cluster, ways[way], random, model);
        took[way].push(ms);
        model = holds;
      }
    for (const [way, ms] of Object.entries(took)) {
      const name = `takeover from an owner that is ${way}, lease of ${LEASE_MS} ms`;
      figures.say(`${name}: median`, median(ms) / 1000, 's', '<= 5');
      figures.say('  longest', Math.max(...ms) / 1000, 's', '<= 5');
    }
  });
}

/** `model`: what the disk holds; it must hold it still, with what is written here, when the other has taken over. */
async function takenOver(
  cluster: BenchCluster,
  signal: 'SIGKILL' | 'SIGSTOP',
  random: SeededRandom,
  model: Uint32Array<ArrayBuffer> | null,
): Promise<{ ms: number; holds: Uint32Array<ArrayBuffer> }> {
  const name = await cluster.ownerOf(VOLUME);
  const other = name === 'ingest-1' ? 'ingest-2' : 'ingest-1';
  const owner = cluster.local.service(name);
  const guest = new FailoverGuest(cluster.at(other, VOLUME), SIZE_BYTES, random);
  if (model !== null) guest.model = model;
  for (let i = 0; i < WRITES_BEFORE; i += 1) await guest.write(1, ANSWER_MS_MAX);
  await pause(random.below(PHASE_MS));
  const cutOffBefore = guest.reconnects;
  const began = performance.now();
  // `kill` also says that nobody starts it again.
  const ended = signal === 'SIGKILL' ? owner.kill() : Promise.resolve(owner.signal(signal));
  while (guest.reconnects === cutOffBefore) await guest.write(1, ANSWER_MS_MAX);
  const ms = performance.now() - began;
  await guest.check(cluster.at(other, VOLUME), guest.model, 'after the takeover');
  await ended;
  if (signal === 'SIGKILL') await owner.start();
  else owner.signal('SIGCONT');
  await eventually('the one before passes the disk on', ANSWER_MS_MAX, () =>
    guest.check(cluster.at(name, VOLUME), guest.model, 'the disk, passed on'),
  );
  await guest.close();
  return { ms, holds: guest.model };
}
