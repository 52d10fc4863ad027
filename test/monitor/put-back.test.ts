// A volume that a check condemns is put back by itself: once, when nobody is in the way, and so that it can be undone.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, withAppliance, withFolder } from '../appliance/appliance-process.ts';
import { assertExportHolds, Guest, MIB } from '../appliance/restore-under-test.ts';
import { certify, clonesOf, jobs, program, type ShownJob, until } from './checked-volume.ts';

const SECTOR = 4096;
const BAD_SECTOR = 77;

interface RestoreJob extends Omit<ShownJob, 'end'> {
  task: string;
  volume: string;
  undoMark: string | null;
  error: { code: string; message: string; hint: string | null } | null;
  end: {
    kind: string;
    putBack?: { undoMark: string | null; clone: string | null; reason: string | null; bytes: number };
  } | null;
}

/** Bad once one sector says so. */
function sectorCheck(folder: string): string {
  const read = `h.pread(${SECTOR}, ${BAD_SECTOR * SECTOR})`;
  return program(
    folder,
    'sector',
    `exec nbdsh -u "$MIM_MIRROR_URI" -c 'import sys; sys.exit(1 if b"ENCRYPTED" in ${read} else 0)'`,
  );
}

class World {
  readonly #appliance: ApplianceProcess;
  readonly #program: string;
  /** What the volume held when it was good, and when it was bad. */
  good = Buffer.alloc(0);
  bad = Buffer.alloc(0);

  constructor(appliance: ApplianceProcess, folder: string) {
    this.#appliance = appliance;
    this.#program = sectorCheck(folder);
  }

  /** Good, checked, and bad since; nobody is connected. */
  async volume(name: string, sizeBytes: number, ...schedule: string[]): Promise<void> {
    const appliance = this.#appliance;
    await appliance.post('/volumes', { name, sizeBytes });
    const guest = await Guest.connect(appliance.uri(name));
    for (let at = 0; at < sizeBytes; at += MIB) await guest.write(at, MIB);
    this.good = Buffer.from(await guest.close());
    const words = ['command', '--name', 'sector', '--program', this.#program, '--on-condemned', 'restore'];
    const added = await appliance.mim('check', 'add', name, ...words, ...schedule);
    assert.equal(added.status, 0, added.stderr);
    assert.equal((await certify(appliance, name, 'sector')).verdict, 'good');
    this.bad = Buffer.from(this.good);
  }

  /** As a bad guest does, over `sizeBytes` of the volume and in one sector of it. */
  async spoil(name: string, sizeBytes: number): Promise<void> {
    const client = await connectNbd(this.#appliance.uri(name));
    for (let at = 0; at < sizeBytes; at += MIB) {
      this.bad.fill(0xbd, at, at + MIB);
      await client.write(at, this.bad.subarray(at, at + MIB));
    }
    this.bad.fill('ENCRYPTED', BAD_SECTOR * SECTOR, (BAD_SECTOR + 1) * SECTOR);
    await client.write(
      BAD_SECTOR * SECTOR,
      this.bad.subarray(BAD_SECTOR * SECTOR, (BAD_SECTOR + 1) * SECTOR),
    );
    await client.flush();
    await client.close();
  }

  /** Oldest first. */
  async restores(name: string): Promise<RestoreJob[]> {
    const all = (await jobs(this.#appliance)) as unknown as RestoreJob[];
    return all.filter(({ task, volume }) => task === 'restore' && volume === name).reverse();
  }

  async restore(name: string, count = 1): Promise<RestoreJob> {
    return await until(`the end of restore ${count} of ${name}`, async () => {
      const job = (await this.restores(name))[count - 1];
      return job !== undefined && job.status !== 'queued' && job.status !== 'running' && job;
    });
  }
}

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
    assert.match(waiting.error!.message, /waits: 1 NBD connection to guest is open/);
    assert.match(
      (await appliance.mim('check', 'jobs')).stdout,
      /running: guest is to be put back to write 8/,
    );
    // It holds back no other check of it, and is not begun twice.
    assert.equal((await certify(appliance, 'guest', 'sector')).verdict, 'bad');
    await guest.close();
    assert.equal((await world.restore('guest')).end?.kind, 'restored');
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

test('killed in the middle it goes on, and is undone to what was there before the first try', () =>
  withFolder(async (folder) => {
    const size = 96 * MIB;
    let appliance = await ApplianceProcess.start(`${folder}/data`);
    try {
      const world = new World(appliance, folder);
      await world.volume('db', size);
      await world.spoil('db', size);
      const before = (await appliance.get<{ latest: { seq: number } }>('/volumes/db')).latest.seq;
      const found = certify(appliance, 'db', 'sector');
      await until('its middle', async () => {
        const { latest } = await appliance.get<{ latest: { seq: number } }>('/volumes/db');
        return latest.seq > before + 30;
      });
      await assert.rejects(
        connectNbd(appliance.uri('db')),
        /takes no connection now: check sector has condemned/,
      );
      const [under] = await world.restores('db');
      assert.equal(under?.status, 'running');
      appliance.kill();
      await appliance.ended;
      await found.catch(() => {}); // it may have been asking
      appliance = await ApplianceProcess.start(`${folder}/data`);
      const after = new World(appliance, folder);
      const done = await after.restore('db');
      assert.equal(done.end?.kind, 'restored', JSON.stringify(done));
      assert.equal(done.job, under.job);
      await assertExportHolds(appliance.uri('db'), world.good);
      await assertExportHolds(appliance.uri(`db@mark:${done.undoMark}`), world.bad);
      const { marks } = await appliance.get<{ marks: { name: string }[] }>('/volumes/db/points');
      assert.deepEqual(
        marks.map(({ name }) => name),
        [done.undoMark],
      );
      assert.equal((await after.restores('db')).length, 1);
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
