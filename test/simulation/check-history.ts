// Every retained version of a range (mapping-index.history) against the naive history: each write of the window once,
// and at each older point exactly one version of every sector, with the bytes that the disk had then.
import assert from 'node:assert/strict';
import { ask } from '@midmirror/bus';
import { SIZE, type World } from './world.ts';

const SECTOR = 512;

/** While no guest writes. */
export async function checkHistory(world: World): Promise<void> {
  const length = SECTOR * (1 + world.random.below(64));
  const offset = SECTOR * world.random.below((SIZE - length) / SECTOR + 1);
  const { bus } = world.running;
  const { versions, truncated } = await ask(bus, 'mapping-index.history', {
    ...{ volumeId: world.volumeId, offset, length, limit: 10_000 },
  });
  assert.equal(truncated, false);
  const older = versions.filter((version) => version.seq === null);
  const mimSeq = Math.max(...older.map((version) => version.toSeq!));
  const expected: (number | null)[][] = [];
  for (const [i, write] of world.submitted.entries()) {
    const start = Math.max(write.start, offset);
    const end = Math.min(write.start + write.length, offset + length);
    if (i + 1 > mimSeq && start < end) expected.push([i + 1, start, end - start]);
  }
  const journaled = versions.filter((version) => version.seq !== null);
  assert.deepEqual(
    journaled.map((version) => [version.seq, version.offset, version.length]),
    expected.reverse(),
    `writes after ${mimSeq} on ${offset}+${length}`,
  );
  const { snapshots } = await world.retained();
  const points = [...snapshots.map((row) => row.seq).filter((seq) => seq < mimSeq), mimSeq];
  for (const seq of points) {
    const image = world.image(seq);
    const times = new Uint8Array(length / SECTOR);
    for (const version of older) {
      if (version.fromSeq > seq || version.toSeq! < seq) continue;
      const end = version.offset + version.length;
      for (let at = version.offset; at < end; at += SECTOR) times[(at - offset) / SECTOR]! += 1;
      const then = world.image(version.toSeq!);
      assert.equal(
        image.compare(then, version.offset, end, version.offset, end),
        0,
        'a version has one content',
      );
    }
    assert.ok(
      times.every((count) => count === 1),
      `at write ${seq} each sector of ${offset}+${length} has one version`,
    );
  }
}
