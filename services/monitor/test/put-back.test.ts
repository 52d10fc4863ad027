// The job that puts a volume back: cut off at every place it ends right, and it is undone to what there was before.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { toNs } from '@midmirror/catalog';
import { putBackTask } from '../put-back/task.ts';
import { BAD, type PutBackVolume, withPutBackVolume } from './put-back-volume.ts';

const CUTS_MAX = 200;

function assertPutBack(volume: PutBackVolume, undoMark: string): void {
  assert.deepEqual(volume.bytes, volume.history[4]);
  // Exactly what the first byte of the restore was written over.
  const before = volume.history[volume.firstFrom!];
  assert.deepEqual(volume.history[volume.marks.get(undoMark)!], before);
}

for (const guest of [false, true])
  test(`cut off wherever something becomes durable${guest ? ', and a guest writes in between' : ''}`, async () => {
    let cuts = 0;
    for (let isCut = true; isCut; cuts += 1)
      await withPutBackVolume(async (volume) => {
        assert.ok(cuts < CUTS_MAX);
        volume.cutAfter = cuts;
        const first = await volume.run().catch(() => null);
        isCut = first === null;
        volume.cutAfter = null;
        // Once it has begun the undo is what there was then.
        if (guest && isCut && !volume.state.begun) volume.write(40_960, 512, 0xee);
        const end = first ?? (await volume.run());
        assert.equal(end?.kind, 'restored', `cut ${cuts}`);
        assertPutBack(volume, end.putBack!.undoMark!);
      });
    assert.ok(cuts > 10, `${cuts} places`);
  });

test('cut off while it finds the present good again, it leaves it', async () => {
  let cuts = 0;
  for (let isCut = true; isCut; cuts += 1)
    await withPutBackVolume(async (volume) => {
      volume.verdict = 'good';
      volume.write(0, 512, 9);
      volume.cutAfter = cuts;
      const first = await volume.run().catch(() => null);
      isCut = first === null;
      volume.cutAfter = null;
      const end = first ?? (await volume.run());
      assert.match(end?.putBack?.reason ?? '', /good again/, `cut ${cuts}`);
      assert.equal(volume.seq, 9);
    });
  assert.ok(cuts > 2);
});

test('a later good point that is found meanwhile is gone back to, unless it is let go', () =>
  withPutBackVolume(async (volume) => {
    const { catalog } = volume.context;
    const verdict = { volume_id: 'a1', check_name: 'fsck', verdict: 'good', reason: '', output: '' };
    const more = { check_key: '', duration_ms: 0, at_ns: toNs(0n), time_ns: toNs(6n) };
    await catalog.db
      .insertInto('verdict')
      .values({ ...verdict, ...more, seq: 6 })
      .execute();
    const pin = { volume_id: 'a1', id: 'restore-j1', seq: 4, holder: 'restore', since_ns: toNs(0n) };
    await catalog.db.insertInto('pin').values(pin).execute();
    const pinned = async () =>
      (await catalog.db.selectFrom('pin').select('seq').execute()).map(({ seq }) => seq);
    volume.guests = 1;
    await catalog.db.updateTable('volume').set({ mim_seq: 7 }).execute();
    const stop = new AbortController();
    const first = volume.run(stop.signal);
    while (volume.waits.length === 0) await new Promise(setImmediate);
    stop.abort();
    await assert.rejects(first);
    assert.equal(volume.state.good.seq, 4);
    assert.deepEqual(await pinned(), [4]);
    await catalog.db.updateTable('volume').set({ mim_seq: 0 }).execute();
    volume.guests = 0;
    const end = await volume.run();
    assert.deepEqual(end?.lastGood, { seq: 6, timeNs: '6' });
    assert.deepEqual(volume.bytes, volume.history[6]);
    assert.deepEqual(await pinned(), [6]);
  }));

test('it waits while a guest is connected, and tells of it once', () =>
  withPutBackVolume(async (volume) => {
    volume.guests = 2;
    let looks = 0;
    volume.asked = () => {
      looks += 1;
      if (looks === 5) volume.guests = 0;
    };
    const end = await volume.run();
    assert.equal(end?.kind, 'restored');
    assert.ok(
      volume.waits.every((why) =>
        /2 NBD connections are open to db \(from 10\.0\.0\.7:1000 and others\), /.test(why),
      ) && volume.waits.length > 2,
    );
    assert.deepEqual(
      volume.events.map(({ type }) => type),
      ['mirror.restore-waits'],
    );
    assertPutBack(volume, end.putBack!.undoMark!);
  }));

test('while the appliance is away it is tried again', () =>
  withPutBackVolume(async (volume) => {
    let looks = 0;
    volume.asked = () => {
      looks += 1;
      if (looks < 4) throw new MidmirrorError('unavailable', 'ingest is away');
    };
    assert.equal((await volume.run())?.kind, 'restored');
    assert.deepEqual(volume.events, [], 'nobody can do anything about it here');
  }));

test('in vain: a clone instead; in the middle it fails and names what undoes it', () =>
  withPutBackVolume(async (volume) => {
    volume.guests = 1;
    volume.state = { ...volume.state, sinceMs: 0 };
    const end = await volume.run();
    assert.equal(end?.kind, 'not-restored');
    assert.match(end.putBack!.reason!, /waited in vain: 1 NBD connection is open/);
    assert.equal(end.putBack!.clone, 'rescue-db-4');
    assert.equal(volume.bytes[1024], BAD);
    volume.state = { ...volume.state, begun: true, mark: 'before-restore-job-j1' };
    await assert.rejects(volume.run(), {
      message: /db is between two moments/,
      hint: /mim restore db --at mark:before-restore-job-j1 --in-place/,
    });
  }));

test('cancelled in the middle it leaves the mark, and tells of it; stopped, it goes on', () =>
  withPutBackVolume(async (volume) => {
    const cancel = new AbortController();
    volume.wrote = () => cancel.abort(new Error('the job was cancelled'));
    await assert.rejects(volume.run(cancel.signal), { message: 'the job was cancelled' });
    const { mark, begun } = volume.state;
    assert.ok(begun);
    assert.deepEqual(volume.history[volume.marks.get(mark!)!], volume.history[8]);
    const task = putBackTask(volume.context);
    assert.equal(task.undoMark?.(volume.state), mark);
    const about = { volumeId: 'a1', check: 'fsck', timeNs: '9' };
    assert.deepEqual(task.event?.(volume.state, about, { failed: 'the job was cancelled' }), {
      ...{ type: 'mirror.not-restored', volumeId: 'a1', timeNs: '9' },
      data: {
        ...{ check: 'fsck', seq: 4, pointNs: '4', reason: 'the job was cancelled', clone: null },
        undoMark: mark,
      },
    });
    volume.wrote = () => {};
    const end = await volume.run();
    assertPutBack(volume, end!.putBack!.undoMark!);
    assert.deepEqual(task.event?.(volume.state, about, { end: end! }), {
      ...{ type: 'mirror.restored', volumeId: 'a1', timeNs: '9' },
      data: { check: 'fsck', seq: 4, pointNs: '4', undoMark: mark },
    });
  }));

test('the present is looked at: good again, the same bytes, bad at another write', () =>
  withPutBackVolume(async (volume) => {
    volume.verdict = 'good';
    volume.write(0, 512, 9);
    const good = await volume.run();
    assert.match(good?.putBack?.reason ?? '', /check fsck finds write 9 good again/);
    volume.verdict = 'cannot-tell';
    volume.write(0, 512, 8);
    assert.equal((await volume.run())?.kind, 'restored');
    const writes = volume.seq;
    volume.state = { ...volume.state, begun: false, mark: null, marks: 0, badSeq: writes };
    volume.marks.clear();
    const same = await volume.run();
    assert.match(same?.putBack?.reason ?? '', /holds the bytes of the last good point already/);
    assert.equal(volume.seq, writes);
    assert.deepEqual(volume.clones, []);
  }));

test('what stands in the way for good: gaps, marks of other restores, clones; not those before the good point', () =>
  withPutBackVolume(async (volume) => {
    const { db } = volume.context.catalog;
    const reasonOf = async (): Promise<string> => (await volume.run())?.putBack?.reason ?? 'none';
    const mark = { volume_id: 'a1', kind: 'bookmark', time_ns: toNs(0n) };
    const clone = { volume_id: 'a1', time_ns: toNs(0n), created_ns: toNs(0n) };
    await db
      .insertInto('mark')
      .values([
        { ...mark, name: 'before-restore-1', seq: 3 },
        { ...mark, name: 'before-upgrade', seq: 6 },
        { ...mark, name: 'before-restore-2', seq: 6 },
      ])
      .execute();
    assert.match(await reasonOf(), /put elsewhere .* at write 6 \(mark:before-restore-2\)/);
    await db.deleteFrom('mark').where('seq', '=', 6).execute();
    await db
      .insertInto('clone')
      .values([
        { ...clone, name: 'old', id: 'c1', seq: 4 },
        { ...clone, name: 'new', id: 'c2', seq: 5 },
      ])
      .execute();
    assert.match(await reasonOf(), /clone new holds write 5/);
    await db.deleteFrom('clone').execute();
    const gap = { volume_id: 'a1', gap: 3, from_seq: 1, from_ns: toNs(1n), to_seq: 2, to_ns: toNs(2n) };
    await db
      .insertInto('gap')
      .values({ ...gap, reason: null })
      .execute();
    assert.match(await reasonOf(), /db is replicated \(gap 3 of its timeline\)/);
    await db.deleteFrom('gap').execute();
    assert.equal(volume.bytes[1024], BAD);
    // A tape's base is there for good; a mirror is waited for.
    const pin = { volume_id: 'a1', seq: 6, since_ns: toNs(0n) };
    await db
      .insertInto('pin')
      .values([
        { ...pin, id: 'tape-base-schedule-a1', holder: 'tape' },
        { ...pin, id: 'mirror-1', holder: 'mirror' },
      ])
      .execute();
    const running = volume.run();
    while (volume.waits.length === 0) await new Promise(setImmediate);
    assert.match(volume.waits[0]!, /write 6, .* is held by a mirror/);
    await db.deleteFrom('pin').where('id', '=', 'mirror-1').execute();
    assert.equal((await running)?.kind, 'restored');
  }));
