// `mim restore --in-place`: the volume goes back by writes of its own history, can be taken forward again, and who
// writes meanwhile is found.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import * as http from 'node:http';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connectNbd } from '@midmirror/nbd';
import { withAppliance } from './appliance-process.ts';
import { assertExportHolds, Guest, MIB, Restores } from './restore-under-test.ts';

const SIZE = 48 * MIB;

interface Volume {
  id: string;
  latest: { seq: number };
}

test('back in place, and forward again: every moment stays, the volume is the same one', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.scatter(60);
    await appliance.post('/volumes/db/marks', { name: 'good' });
    const good = Buffer.from(guest.bytes);
    await guest.zeroes(30 * MIB, 5 * MIB);
    await guest.scatter(60);
    const bad = await guest.close();
    const restores = new Restores(appliance, folder);
    const { id } = await appliance.get<Volume>('/volumes/db');
    const words = ['db', '--at', 'mark:good', '--in-place'];

    const planned = await restores.lines(...words, '--dry-run');
    assert.ok(planned.plan!.bytes > 0 && planned.done === undefined);
    await assertExportHolds(appliance.uri('db'), bad);

    const back = await restores.run(...words, '--yes');
    assert.equal(back.status, 0, back.stderr);
    assert.match(back.stderr, /No guest may have it mounted/);
    assert.match(
      back.stdout,
      /compared with it byte by byte\.\nTo undo it: mim restore db --at mark:before-restore-1 --in-place/,
    );
    await assertExportHolds(appliance.uri('db'), good);
    await assertExportHolds(appliance.uri('db@mark:before-restore-1'), bad);
    assert.equal((await appliance.get<Volume>('/volumes/db')).id, id);

    const forth = await restores.lines('db', '--at', 'mark:before-restore-1', '--in-place', '--yes');
    assert.equal(forth.done!.undoMark, 'before-restore-2');
    await assertExportHolds(appliance.uri('db'), bad);
    await assertExportHolds(appliance.uri('db@mark:before-restore-2'), good);
    await assertExportHolds(appliance.uri('db@mark:good'), good);

    const { latest } = await appliance.get<Volume>('/volumes/db');
    const nothing = await restores.lines('db', '--at', 'mark:before-restore-1', '--in-place', '--yes');
    assert.equal(nothing.plan!.bytes, 0);
    assert.equal(nothing.done!.undoMark, null);
    assert.equal((await appliance.get<Volume>('/volumes/db')).latest.seq, latest.seq, 'nothing was written');
    assert.equal((await appliance.mim('verify', 'db')).status, 0);

    await appliance.post('/clones', { volume: 'db', at: 'latest', name: 'copy' });
    await restores.fails(2, /copy is a clone/, 'copy', '--at', 'latest', '--in-place', '--yes');
    await restores.fails(3, /seq:99999 is not a point/, 'db', '--at', 'seq:99999', '--in-place', '--yes');
  }));

test('killed in the middle it is run again, and undone to what was there before the first try', () =>
  withAppliance({}, async (appliance, folder) => {
    const size = 256 * MIB;
    await appliance.post('/volumes', { name: 'db', sizeBytes: size });
    const guest = await Guest.connect(appliance.uri('db'));
    for (let at = 0; at < size; at += 8 * MIB) await guest.write(at, 8 * MIB);
    await appliance.post('/volumes/db/marks', { name: 'good' });
    const good = Buffer.from(guest.bytes);
    for (let at = 0; at < size; at += 8 * MIB) await guest.write(at, 8 * MIB);
    const bad = await guest.close();
    const before = (await appliance.get<Volume>('/volumes/db')).latest.seq;
    const restores = new Restores(appliance, folder);
    const first = restores.start('db', '--at', 'mark:good', '--in-place', '--yes');
    let over = false;
    void first.ended.then(() => (over = true));
    while (!over && (await appliance.get<Volume>('/volumes/db')).latest.seq < before + 30) await pause(2);
    assert.ok(!over, 'it is killed in the middle');
    first.child.kill('SIGKILL');
    await first.ended;
    const told = await restores.run('db', '--status', '--in-place');
    assert.match(told.stdout, /db is incomplete.*mark:before-restore-1/);
    const again = await restores.lines('db', '--in-place', '--yes');
    assert.equal(again.done!.undoMark, 'before-restore-1');
    assert.ok(again.plan!.bytes < size, 'what the first try wrote is not written again');
    await assertExportHolds(appliance.uri('db'), good);
    await assertExportHolds(appliance.uri('db@mark:before-restore-1'), bad);
    assert.match((await restores.run('db', '--status', '--in-place')).stdout, /no restore is unfinished/);
  }));

test('a guest that writes meanwhile is found', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.write(0, 16 * MIB);
    await appliance.post('/volumes/db/marks', { name: 'good' });
    await guest.write(0, 16 * MIB);
    await guest.close();
    const restores = new Restores(appliance, folder);
    const { ended } = restores.start('db', '--at', 'mark:good', '--in-place', '--yes');
    const writer = await connectNbd(appliance.uri('db'));
    let over = false;
    void ended.then(() => (over = true));
    for (let fill = 1; !over; fill += 1) {
      await writer.write(SIZE - 4096, Buffer.alloc(4096, fill));
      await pause(1);
    }
    await writer.close();
    const { status, stderr } = await ended;
    assert.equal(status, 1, stderr);
    assert.match(stderr, /somebody writes to it\n.*mark:before-restore-1/);
  }));

test('a volume that a replicator of this host feeds goes back by its primary', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const restores = new Restores(appliance, folder);
    mkdirSync(`${folder}/replicator`);
    // Its control socket, and what it tells there.
    const status = {
      volume: 'db',
      api: appliance.api,
      group: null,
      primary: '/srv/db.img',
      mode: 'replicating',
    };
    const replicator = http.createServer((_, answer) => answer.end(JSON.stringify(status)));
    await new Promise<void>((resolve) =>
      replicator.listen(`${folder}/replicator/control-${'0'.repeat(16)}.sock`, resolve),
    );
    try {
      await restores.fails(
        1,
        /db is replicated from \/srv\/db\.img by this host\n.*--to/,
        ...['db', '--at', 'latest', '--in-place', '--yes', '--replicator-dir', `${folder}/replicator`],
      );
    } finally {
      replicator.close();
    }
  }));
