// A takeover copies the segment that was not sealed and seals the copy, under the same name. Who had the file open before
// has the displaced owner's, with another end or none.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNs, volumeById } from '@midmirror/catalog';
import { LostPieceError } from '@midmirror/pool';
import { Points } from '../points.ts';
import { BEGAN_NS, VOLUME, withIndex } from './index-on-files.ts';

for (const wakes of [false, true]) {
  test(`writes are found in a segment that a takeover replaced${wakes ? ', though the displaced owner sealed its own' : ''}`, () =>
    withIndex(async (owners, index, catalog) => {
      const before = await owners.open();
      await owners.write(before, 5);
      const number = before.segments[0]!.number;
      // As a mirror does that reads what is in no run yet.
      assert.equal(await (await index.pieces.segment(number)).footer(), null);
      const after = await owners.open();
      const [sealed] = after.segments;
      assert.ok(sealed?.number === number && sealed.sealed && sealed.lastSeq === 5);
      if (wakes) {
        await owners.write(before, 3);
        before.rotate();
        await owners.write(before, 1);
        const stale = await (await index.pieces.segment(number)).footer();
        assert.equal(stale?.lastSeq, 8, 'the file that is open ends in another way');
      }
      const ns = { first_ns: toNs(sealed.firstNs), last_ns: toNs(sealed.lastNs) };
      const row = { segment: number, epoch: sealed.epoch, first_seq: 1, last_seq: 5, ...ns };
      await catalog.db
        .insertInto('segment')
        .values({ volume_id: VOLUME, ...row })
        .execute();
      const points = new Points(index, catalog);
      const volume = await volumeById(catalog.db, VOLUME);
      assert.equal(await points.timeOf(volume, 5), sealed.lastNs);
      const asked = `seq:4`;
      const end = { seq: 5, timeNs: sealed.lastNs };
      assert.equal((await points.choose(volume, asked, end, sealed.lastNs)).seq, 4);
      await after.close();
      await before.close().catch(() => {});
    }));
}

test('a segment that is sealed and has no footer is damaged, also when it is opened anew', () =>
  withIndex(async (owners, index, catalog) => {
    const disk = await owners.open();
    await owners.write(disk, 5);
    const number = disk.segments[0]!.number;
    const ns = { first_ns: toNs(BEGAN_NS), last_ns: toNs(BEGAN_NS) };
    const row = { segment: number, epoch: 1, first_seq: 1, last_seq: 4, ...ns };
    await catalog.db
      .insertInto('segment')
      .values({ volume_id: VOLUME, ...row })
      .execute();
    const volume = await volumeById(catalog.db, VOLUME);
    await assert.rejects(new Points(index, catalog).timeOf(volume, 3), (error) => {
      assert.ok(error instanceof LostPieceError && error.code === 'corrupt');
      assert.match(error.message, /was sealed with write 4 and has no footer/);
      return true;
    });
    await disk.close();
  }));
