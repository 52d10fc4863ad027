// Each process in turn is killed or stopped for a while, many times, while two guests write: nothing that was answered
// is lost, every mark stays what it was, and what does not serve disks is not felt by those who write.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { type ClusterUnderTest, eventually, FailoverGuest, withCluster } from './cluster-under-test.ts';
import { FioLoad } from './fio-load.ts';

const SIZE_BYTES = 8 << 20;
const LEASE_MS = 5000;
const SETTINGS = { MIM_SEGMENT_BYTES: '36MiB', MIM_LEASE_MS: String(LEASE_MS) };
const ANSWER_MS_MAX = 30_000;
const ROUNDS = Number(process.env['FAULT_ROUNDS'] ?? '7');
const SEED = Number(process.env['FAULT_SEED'] ?? Date.now() % 1_000_000);

interface Fault {
  of: string;
  how: 'kill' | 'stop';
}

const FAULTS: Fault[] = [
  'ingest-1',
  'ingest-2',
  'mapping-index',
  'synchronizer',
  'tape-archiver',
  'monitor',
  'console',
  'nats',
  'postgres',
].flatMap((of): Fault[] => [
  { of, how: 'kill' },
  { of, how: 'stop' },
]);

/** Begins the fault; ends it after `ms` (a killed one is started again). */
async function strike({ local }: ClusterUnderTest, { of, how }: Fault, ms: number): Promise<void> {
  if (of !== 'nats' && of !== 'postgres') {
    const service = local.service(of);
    service.signal(how === 'kill' ? 'SIGKILL' : 'SIGSTOP');
    await pause(ms);
    if (how === 'stop') service.signal('SIGCONT');
    return;
  }
  const server = of === 'nats' ? local.nats : local.postgres;
  if (how === 'stop') {
    process.kill(server.pid, 'SIGSTOP');
    await pause(ms);
    process.kill(server.pid, 'SIGCONT');
    return;
  }
  await server.kill();
  await pause(ms);
  await (of === 'nats' ? local.nats.restart() : local.restartPostgres());
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  const left = [...items];
  return Array.from(items, () => left.splice(random.below(left.length), 1)[0]!);
}

test(`${ROUNDS} faults under load (seed ${SEED})`, { timeout: 540_000 }, () =>
  withCluster(SETTINGS, { ingests: 2, withinMs: 500_000 }, async (cluster) => {
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    await cluster.post('/volumes', { name: 'fio', sizeBytes: 64 << 20 });
    const load = await FioLoad.start(cluster.folder, cluster.at('ingest-1', 'fio'));
    try {
      await rounds(cluster, new SeededRandom(SEED));
      await load.stop();
    } finally {
      load.kill();
    }
    for (const name of ['db', 'fio']) await cluster.verify(name);
  }),
);

async function rounds(cluster: ClusterUnderTest, random: SeededRandom): Promise<void> {
  // Through an ingest that may own it or pass it on.
  const guest = new FailoverGuest(cluster.at('ingest-2', 'db'), SIZE_BYTES, random);
  const marks: { name: string; model: Uint32Array }[] = [];
  const mark = async (): Promise<void> => {
    const name = `mark-${marks.length}`;
    await cluster.mark('db', name);
    marks.push({ name, model: guest.model.slice() });
  };
  await guest.write(64, ANSWER_MS_MAX);
  await mark();
  const faults = shuffled(FAULTS, random);
  for (let round = 0; round < ROUNDS; round += 1) {
    const fault = faults[round % faults.length]!;
    const told = await underFault(cluster, guest, fault, random.chance(0.5));
    process.stdout.write(`round ${round}: ${told}\n`);
    cluster.lines.push(`round ${round}: ${told}`);
    await mark();
    if (random.chance(0.6))
      await eventually('a sync', ANSWER_MS_MAX, () =>
        cluster.post('/volumes/db/syncs', { closeSnapshot: random.chance(0.5) }),
      );
    const some = random.pick(marks);
    await eventually(`${some.name} is read`, ANSWER_MS_MAX, () =>
      guest.check(cluster.at('ingest-1', `db@mark:${some.name}`), some.model, some.name),
    );
  }
  for (const { name, model } of marks) await guest.check(cluster.uri(`db@mark:${name}`), model, name);
  await guest.check(cluster.uri('db'), guest.model, 'the live disk');
  await guest.close();
}

/** Writes while it lasts and for a while after; what came of it. */
async function underFault(
  cluster: ClusterUnderTest,
  guest: FailoverGuest,
  fault: Fault,
  long: boolean,
): Promise<string> {
  const ms = fault.how === 'stop' && long ? LEASE_MS + 3000 : 1500;
  const { writes, reconnects } = guest;
  guest.longestMs = 0;
  let striking = true;
  const struck = strike(cluster, fault, ms).finally(() => {
    striking = false;
  });
  while (striking) await guest.write(16, ANSWER_MS_MAX);
  await struck;
  for (let i = 0; i < 10; i += 1) await guest.write(16, ANSWER_MS_MAX);
  const cut = guest.reconnects - reconnects;
  const told = `${fault.how} ${fault.of} for ${ms} ms: ${guest.writes - writes} writes, cut off ${cut} times, longest write ${guest.longestMs.toFixed(0)} ms`;
  // Whoever does not serve disks is not missed by those who write.
  if (!fault.of.startsWith('ingest')) assert.equal(cut, 0, told);
  return told;
}
