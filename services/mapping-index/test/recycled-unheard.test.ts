// Segments that were recycled while the index heard nothing: neither that they were sealed nor that they have gone.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LostPieceError, MimWriter } from '@midmirror/pool';
import { BEGAN_NS, VOLUME, withIndex } from './index-on-files.ts';

const BYTES = 4 * 512;

for (const synced of [true, false]) {
  test(
    synced
      ? 'a mirror whose segment was recycled unheard reads its point from the MIM'
      : 'a mirror whose segment is damaged says so, and gives no other bytes',
    () =>
      withIndex(async (owners, index, catalog) => {
        const disk = await owners.open();
        await owners.write(disk, 4);
        const [segment] = disk.segments;
        index.tail.add(1, segment!.log!.bytes(0, segment!.log!.length).slice());
        const { mirror, release } = await index.turns.take(() => index.openMirror(4, BEGAN_NS, 'mirror'));
        const expected = Buffer.alloc(BYTES);
        await disk.read(0, BYTES, expected, 0);
        const bytes = Buffer.alloc(BYTES);
        await mirror.read(0, BYTES, bytes, 0);
        assert.deepEqual(bytes, expected);
        if (synced) {
          const mim = await MimWriter.open(owners.files, owners.paths);
          await mim.mark([0, BYTES]);
          await mim.write([expected], 0);
          await mim.close();
          await catalog.db.updateTable('volume').set({ mim_seq: 4 }).where('id', '=', VOLUME).execute();
        }
        const file = await owners.files.open(`${owners.paths.forward}/${segment!.name}`, 'write');
        await file.writev([Buffer.alloc(16 << 10, 7)], 4096);
        await file.close();
        bytes.fill(0);
        if (!mirror.tryRead(0, BYTES, bytes, 0)) {
          const reading = mirror.read(0, BYTES, bytes, 0);
          if (synced) await reading;
          else
            await assert.rejects(reading, (error) => {
              assert.ok(error instanceof LostPieceError && error.code === 'corrupt');
              return true;
            });
        }
        assert.equal(bytes.equals(expected), synced);
        await release();
        await disk.close();
      }),
  );
}
