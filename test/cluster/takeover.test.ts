// Two ingests on one pool. Each volume has one owner; when it dies, hangs or is cut off from the others, the other
// one takes over within the lease, with all that was answered, and the one before does no harm.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { stopProcess } from '@midmirror/local-servers';
import { connectNbd } from '@midmirror/nbd';
import {
  BLOCK_BYTES,
  type ClusterUnderTest,
  eventually,
  FailoverGuest,
  withCluster,
} from './cluster-under-test.ts';

const SIZE_BYTES = 4 << 20;
const LEASE_MS = 5000;
const SETTINGS = { MIM_SEGMENT_BYTES: '36MiB', MIM_LEASE_MS: String(LEASE_MS) };
const ANSWER_MS_MAX = 30_000;

const otherOf = (name: string): string => (name === 'ingest-1' ? 'ingest-2' : 'ingest-1');

async function volumeAndGuest(
  cluster: ClusterUnderTest,
): Promise<{ owner: string; other: string; guest: FailoverGuest }> {
  await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
  const owner = await cluster.ownerOf('db');
  const other = otherOf(owner);
  // At the one that passes it on, and lives on.
  const guest = new FailoverGuest(cluster.at(other, 'db'), SIZE_BYTES, new SeededRandom(7));
  for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
  return { owner, other, guest };
}

test('a killed owner: the other one takes over within the lease, with all that was answered', () =>
  withCluster(SETTINGS, { ingests: 2, restart: false }, async (cluster) => {
    const { owner, other, guest } = await volumeAndGuest(cluster);
    await cluster.post('/volumes/db/marks', { name: 'before' });
    const before = guest.model.slice();
    await cluster.local.service(owner).kill();
    guest.longestMs = 0;
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    assert.ok(guest.reconnects > 0, 'it was cut off');
    process.stdout.write(`taken over after a kill: longest write ${guest.longestMs.toFixed(0)} ms\n`);
    assert.equal(await cluster.ownerOf('db'), other);
    await guest.check(cluster.at(other, 'db'), guest.model, 'the live disk');
    await eventually('the mark is read', ANSWER_MS_MAX, () =>
      guest.check(cluster.at(other, 'db@mark:before'), before, 'the mark'),
    );
    await cluster.post('/volumes/db/syncs', { closeSnapshot: true });
    // It comes back: the volume stays where it is, and is reached at both.
    await cluster.local.service(owner).start();
    await guest.check(cluster.at(owner, 'db'), guest.model, 'the live disk, passed on');
    assert.equal(await cluster.ownerOf('db'), other);
    await cluster.verify('db');
    await guest.close();
  }));

test('a stopped owner that wakes after the takeover answers nothing and changes nothing', () =>
  withCluster(SETTINGS, { ingests: 2, restart: false }, async (cluster) => {
    const { owner, other, guest } = await volumeAndGuest(cluster);
    // Requests that it will find in its sockets when it wakes.
    const late = await connectNbd(cluster.at(owner, 'db'));
    await late.read(0, BLOCK_BYTES);
    await stopProcess(cluster.local.service(owner).pid!);
    const answers: string[] = [];
    const asked = Array.from({ length: 8 }, (_, i) =>
      late.write(i * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 0xee)).then(
        () => answers.push('written'),
        () => {}, // hung up, as it must be
      ),
    );
    const reading = late.read(0, BLOCK_BYTES).then(
      () => answers.push('read'),
      () => {}, // likewise
    );
    guest.longestMs = 0;
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    process.stdout.write(`taken over from a stopped one: longest write ${guest.longestMs.toFixed(0)} ms\n`);
    assert.equal(await cluster.ownerOf('db'), other);
    cluster.local.service(owner).signal('SIGCONT');
    for (let i = 0; i < 40; i += 1) await guest.write(16, ANSWER_MS_MAX);
    await Promise.all([...asked, reading]);
    assert.deepEqual(answers, []);
    await guest.check(cluster.at(other, 'db'), guest.model, 'the live disk');
    // It has joined again.
    await eventually('it passes the disk on', ANSWER_MS_MAX, () =>
      guest.check(cluster.at(owner, 'db'), guest.model, 'the live disk, passed on'),
    );
    const said = cluster.lines.filter((line) => line.includes(`${owner}:`) && /taken/.test(line));
    assert.ok(said.length > 0, 'it says that it was displaced');
    await cluster.post('/volumes/db/syncs', {});
    await cluster.verify('db');
    await guest.close();
  }));

test('an owner that is cut off from NATS is displaced, and hangs up; mended, it joins again', () =>
  withCluster(SETTINGS, { ingests: 2, restart: false, cable: true }, async (cluster) => {
    const { owner, other, guest } = await volumeAndGuest(cluster);
    cluster.cables.get(owner)!.cut();
    await eventually('the other takes over', ANSWER_MS_MAX, async () => {
      await guest.write(16, ANSWER_MS_MAX);
      assert.equal(await cluster.metric(other, 'midmirror_volume_owner{volume="db"'), 1);
    });
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    await eventually('the one before lets go', ANSWER_MS_MAX, async () => {
      assert.equal(await cluster.metric(owner, 'midmirror_volume_owner{volume="db"'), null);
    });
    cluster.cables.get(owner)!.mend();
    await eventually('it passes the disk on', ANSWER_MS_MAX, () =>
      guest.check(cluster.at(owner, 'db'), guest.model, 'the live disk, passed on'),
    );
    await guest.close();
  }));

test('an ingest that is stopped in order hands its volumes over at once', () =>
  withCluster(SETTINGS, { ingests: 2, restart: false }, async (cluster) => {
    const { owner, other, guest } = await volumeAndGuest(cluster);
    const stopped = cluster.local.service(owner).stop();
    guest.longestMs = 0;
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    await stopped;
    process.stdout.write(`handed over: longest write ${guest.longestMs.toFixed(0)} ms\n`);
    assert.equal(await cluster.ownerOf('db'), other);
    await guest.check(cluster.at(other, 'db'), guest.model, 'the live disk');
    await guest.close();
  }));

test('there is one synchronizer: another one waits as long as the first lives, stopped or not, and then goes on', () =>
  withCluster(SETTINGS, { restart: false }, async (cluster) => {
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    const guest = new FailoverGuest(cluster.uri('db'), SIZE_BYTES, new SeededRandom(8));
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    await cluster.post('/volumes/db/marks', { name: 'before' });
    const before = guest.model.slice();
    const first = cluster.local.service('synchronizer');
    first.signal('SIGSTOP');
    const second = await cluster.local.add('synchronizer-2', 'synchronizer');
    const running = second.start();
    await eventually('it waits', ANSWER_MS_MAX, async () => {
      assert.ok(cluster.lines.some((line) => /synchronizer-2: .*works on .* already by process/.test(line)));
    });
    const ready = await fetch(`${second.says.get('metrics (HTTP)')}/readyz`);
    assert.equal(ready.status, 503);
    assert.match(await ready.text(), /works on/);
    await guest.write(16, ANSWER_MS_MAX);
    await first.kill();
    await running;
    await eventually('a sync', ANSWER_MS_MAX, () =>
      cluster.post('/volumes/db/syncs', { closeSnapshot: true }),
    );
    await guest.check(cluster.uri('db@mark:before'), before, 'the mark');
    await guest.check(cluster.uri('db'), guest.model, 'the live disk');
    await cluster.verify('db');
    await guest.close();
  }));
