// A volume that a check condemns is put back by itself: once, when nobody is in the way, and so that it can be undone.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { withAppliance } from '../appliance/appliance-process.ts';
import { assertExportHolds, MIB } from '../appliance/restore-under-test.ts';
import { certify, clonesOf, until } from './checked-volume.ts';
import { BAD_SECTOR, SECTOR, World } from './put-back-world.ts';

test('put back once by a scheduled check; undone by the command it names; then left to people', () =>
  withAppliance({}, async (appliance, folder) => {
    const world = new World(appliance, folder);
    await world.volume('db', 16 * MIB, '--every', '10s');
    await world.spoil('db', 3 * MIB);
    const { good, bad } = world;
    const first = await world.restore('db');
    assert.equal(first.end?.kind, 'restored', JSON.stringify(first));
    assert.equal(first.cause, 'schedule');
    assert.ok(first.end.putBack!.bytes >= 3 * MIB && first.end.putBack!.bytes < 4 * MIB);
    await assertExportHolds(appliance.uri('db'), good);
    await assertExportHolds(appliance.uri(`db@mark:${first.undoMark}`), bad);
    const listed = await appliance.mim('check', 'jobs');
    const undo = /to undo it: mim (restore db --at mark:before-restore-job-\S+ --in-place)/.exec(
      listed.stdout,
    );
    assert.ok(undo, listed.stdout);
    assert.match((await appliance.mim('check', 'list', 'db')).stdout, /sector +command +every 10 s +restore/);
    assert.equal((await certify(appliance, 'db', 'sector')).verdict, 'good');

    const undone = await appliance.mim(...undo[1]!.split(' '), '--yes', '--state-dir', `${folder}/state`);
    assert.equal(undone.status, 0, undone.stderr);
    await assertExportHolds(appliance.uri('db'), bad);
    // By schedule too, meanwhile: still it is one.
    for (let i = 0; i < 2; i += 1) assert.equal((await certify(appliance, 'db', 'sector')).verdict, 'bad');
    const second = await world.restore('db', 2);
    assert.equal(second.end?.kind, 'not-restored', JSON.stringify(second));
    assert.match(second.end.putBack!.reason!, /was put elsewhere .* \(mark:before-restore-1\)/);
    assert.equal((await certify(appliance, 'db', 'sector')).verdict, 'bad');
    assert.equal((await world.restores('db')).length, 2);
    await assertExportHolds(appliance.uri('db'), bad);
    const points = (await appliance.mim('points', 'db')).stdout;
    assert.match(points, /sector +put back to write 16, 3 MiB written; to undo it: mim restore db/);
    assert.match(
      points,
      /sector +not put back to write \d+: [^\n]*; clone rescue-db-\d+ of write \d+ instead/,
    );
  }));

test('a guest that is connected is waited for, a held point is not passed, a good present is left', () =>
  withAppliance({}, async (appliance, folder) => {
    const world = new World(appliance, folder);
    const size = 8 * MIB;
    await world.volume('guest', size);
    await world.spoil('guest', MIB);
    const { good } = world;
    const guest = await connectNbd(appliance.uri('guest'));
    assert.equal((await certify(appliance, 'guest', 'sector')).verdict, 'bad');
    const waiting = await until('a restore that waits', async () =>
      (await world.restores('guest')).find(({ error }) => error !== null),
    );
    assert.equal(waiting.status, 'running');
    assert.match(
      waiting.error!.message,
      /waits: 1 NBD connection is open to guest \(from 127\.0\.0\.1:\d+\), /,
    );
    assert.match(
      (await appliance.mim('check', 'jobs')).stdout,
      /running: guest is to be put back to write 8/,
    );
    // It holds back no other check of it, and is not begun twice.
    assert.equal((await certify(appliance, 'guest', 'sector')).verdict, 'bad');
    // Somebody finds a later good point meanwhile: less is lost.
    assert.equal((await certify(appliance, 'guest', 'sector', 'seq:9')).verdict, 'good');
    await until('the later point', async () =>
      /write 9,/.test((await world.restores('guest'))[0]!.error!.message),
    );
    await guest.close();
    assert.equal((await world.restore('guest')).end?.kind, 'restored');
    good.fill(0xbd, 0, MIB);
    await assertExportHolds(appliance.uri('guest'), good);
    assert.equal((await world.restores('guest')).length, 1);

    await world.volume('held', size);
    await world.spoil('held', MIB);
    await appliance.post('/clones', { volume: 'held', at: 'latest', name: 'work' });
    await certify(appliance, 'held', 'sector');
    const { end } = await world.restore('held');
    assert.equal(end?.kind, 'not-restored');
    assert.match(end.putBack!.reason!, /clone work holds write 10, which is after the last good point/);
    assert.deepEqual((await clonesOf(appliance)).sort(), ['rescue-held-8', 'work']);
    await assertExportHolds(appliance.uri('held'), world.bad);
    await assertExportHolds(appliance.uri('rescue-held-8'), world.good);

    // An open mirror of a later moment is waited for; cancelled meanwhile, nothing was written.
    await world.volume('open', size);
    await world.spoil('open', MIB);
    const mirror = await connectNbd(appliance.uri('open@latest'));
    await certify(appliance, 'open', 'sector', 'seq:10');
    const held = await until('a restore that waits', async () =>
      (await world.restores('open')).find(({ error }) => error !== null),
    );
    assert.match(held.error!.message, /write 10, .* is held by a mirror/);
    const cancelled = await appliance.mim('check', 'cancel', held.job);
    assert.equal(cancelled.status, 0, cancelled.stderr);
    assert.equal((await world.restore('open')).status, 'cancelled');
    await mirror.close();
    await assertExportHolds(appliance.uri('open'), world.bad);

    // Bad once, and good again before anybody looked.
    await world.volume('mended', size);
    await world.spoil('mended', MIB);
    const mender = await connectNbd(appliance.uri('mended'));
    await mender.write(BAD_SECTOR * SECTOR, Buffer.alloc(SECTOR));
    await mender.flush();
    await mender.close();
    await certify(appliance, 'mended', 'sector', 'seq:10');
    const mended = (await world.restore('mended')).end;
    assert.match(mended?.putBack?.reason ?? '', /finds write 11 good again/);
    assert.equal(mended?.putBack?.clone, null);

    // One whose primary would not follow.
    await appliance.post('/volumes', { name: 'fed', sizeBytes: size });
    const gap = await appliance.mim('gap', 'open', 'fed');
    assert.equal(gap.status, 0, gap.stderr);
    const words = ['check', 'add', 'fed', 'command', '--name', 'c', '--program', '/bin/true'];
    const refused = await appliance.mim(...words, '--on-condemned', 'restore');
    assert.equal(refused.status, 1, refused.stdout);
    assert.match(refused.stderr, /restore is not possible: fed is replicated \(gap 1 [\s\S]*choose clone/);
  }));
