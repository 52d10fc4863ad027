import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask } from '@midmirror/bus';
import { checkHistory } from './check-history.ts';
import { SIZE, withVolume } from './volume-on-disk.ts';

test('history is told while snapshots are dropped under it', async () => {
  await withVolume(async (volume) => {
    await volume.fill();
    await volume.snapshots(20);
    const { bus } = volume.services;
    const rows = await volume.rows();
    let dropping = true;
    const dropAll = async (): Promise<void> => {
      for (const row of rows.slice(1, -2)) await volume.drop(row.snapshot);
      dropping = false;
    };
    const told = async (): Promise<number> => {
      let count = 0;
      for (; dropping; count += 1) {
        await ask(bus, 'mapping-index.history', {
          volumeId: volume.id,
          offset: 0,
          length: SIZE / 8,
          limit: 10_000,
        });
      }
      return count;
    };
    const [, count] = await Promise.all([dropAll(), told()]);
    assert.ok(count > 0);
    await checkHistory({
      ...{ random: volume.random, bus, volumeId: volume.id, sizeBytes: SIZE },
      writesAfter: () => [],
      same: (one, other, start, end) => volume.same(one, other, start, end),
      snapshotSeqs: async () => (await volume.rows()).map((row) => row.seq),
    });
  });
});
