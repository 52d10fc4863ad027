// Each process in turn is killed or stopped for a while, many times, while two guests write: nothing that was answered
// is lost, every mark stays what it was, and what does not serve disks is not felt by those who write.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { cleanEnvironment, succeed } from '../appliance/appliance-process.ts';
import { type ClusterUnderTest, eventually, FailoverGuest, withCluster } from './cluster-under-test.ts';

const SIZE_BYTES = 8 << 20;
const LEASE_MS = 5000;
const ANSWER_MS_MAX = 30_000;
const ROUNDS = Number(process.env['FAULT_ROUNDS'] ?? '14');
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

/** A real client that connects again and asks again what was not answered, for programs that can't. */
async function startRetrying(
  cluster: ClusterUnderTest,
  uri: string,
): Promise<{ socket: string; child: ChildProcess }> {
  const socket = `${cluster.folder}/retrying.sock`;
  const how = ['retries=40', 'retry-delay=1', 'retry-exponential=no'];
  const child = spawn('nbdkit', ['-f', '-U', socket, '--filter=retry', 'nbd', `uri=${uri}`, ...how], {
    env: cleanEnvironment(),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  for (let i = 0; i < 200 && !existsSync(socket); i += 1) await pause(25);
  assert.ok(existsSync(socket), 'nbdkit with its retry filter has started');
  return { socket, child };
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  const left = [...items];
  return Array.from(items, () => left.splice(random.below(left.length), 1)[0]!);
}

test(`${ROUNDS} faults under load (seed ${SEED})`, { timeout: 600_000 }, () =>
  withCluster(
    { MIM_SEGMENT_BYTES: '36MiB', MIM_LEASE_MS: String(LEASE_MS) },
    { ingests: 2 },
    async (cluster) => {
      const random = new SeededRandom(SEED);
      await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
      await cluster.post('/volumes', { name: 'fio', sizeBytes: 64 << 20 });
      // Through an ingest that may own it or pass it on.
      const guest = new FailoverGuest(cluster.at('ingest-2', 'db'), SIZE_BYTES, random);
      const retrying = await startRetrying(cluster, cluster.at('ingest-1', 'fio'));
      let writing = true;
      const fio = (async () => {
        while (writing)
          await succeed('fio', [
            ...[
              '--name=load',
              '--ioengine=nbd',
              `--uri=nbd+unix:///?socket=${retrying.socket}`,
              '--rw=randwrite',
            ],
            ...[
              '--bs=4096',
              '--iodepth=8',
              '--size=16m',
              '--rate_iops=400',
              '--verify=crc32c',
              '--do_verify=1',
            ],
            ...['--verify_fatal=1', '--fsync=64', '--io_size=8m'],
          ]);
      })();
      fio.catch(() => {}); // told of at the end
      const marks: { name: string; model: Uint32Array }[] = [];
      await guest.write(64, ANSWER_MS_MAX);
      const mark = async (): Promise<void> => {
        const name = `mark-${marks.length}`;
        // Asked again: whoever was to answer may have died after it was made.
        await eventually(`mark ${name}`, ANSWER_MS_MAX, async () => {
          const made = await cluster.mim('mark', 'db', name);
          assert.ok(made.status === 0 || /exists already/.test(made.stderr), made.stderr);
        });
        marks.push({ name, model: guest.model.slice() });
      };
      await mark();
      const open = await connectNbd(cluster.at('ingest-2', 'db@mark:mark-0'));
      await open.read(0, 65536);
      const faults = shuffled(FAULTS, random);
      for (let round = 0; round < ROUNDS; round += 1) {
        const fault = faults[round % faults.length]!;
        const ms = fault.how === 'kill' ? 1500 : random.pick([1000, LEASE_MS + 3000]);
        const before = { writes: guest.writes, reconnects: guest.reconnects };
        guest.longestMs = 0;
        let striking = true;
        const struck = strike(cluster, fault, ms).finally(() => {
          striking = false;
        });
        while (striking) await guest.write(16, ANSWER_MS_MAX);
        await struck;
        for (let i = 0; i < 10; i += 1) await guest.write(16, ANSWER_MS_MAX);
        const told = `${fault.how} ${fault.of} for ${ms} ms: ${guest.writes - before.writes} writes, ${guest.reconnects - before.reconnects} reconnects, longest ${guest.longestMs.toFixed(0)} ms`;
        process.stdout.write(`round ${round}: ${told}\n`);
        cluster.lines.push(`round ${round}: ${told}`);
        if (!fault.of.startsWith('ingest')) assert.equal(guest.reconnects, before.reconnects, told);
        await mark();
        if (random.chance(0.6))
          await eventually('a sync', 60_000, () =>
            cluster.post('/volumes/db/syncs', { closeSnapshot: random.chance(0.5) }),
          );
        const some = random.pick(marks);
        await eventually(`${some.name} is read`, ANSWER_MS_MAX, () =>
          guest.check(cluster.at('ingest-1', `db@mark:${some.name}`), some.model, some.name),
        );
      }
      writing = false;
      await fio;
      for (const { name, model } of marks) await guest.check(cluster.uri(`db@mark:${name}`), model, name);
      await guest.check(cluster.uri('db'), guest.model, 'the live disk');
      for (const name of ['db', 'fio']) {
        const verified = await cluster.mim('verify', name);
        assert.equal(verified.status, 0, verified.stdout + verified.stderr);
      }
      await open.close().catch(() => {}); // of whoever served it then
      await guest.close();
      retrying.child.kill('SIGTERM');
    },
  ),
);
