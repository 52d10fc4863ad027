// Every retained version of a range (mapping-index.history) against the naive history: each write of the window once,
// and at each older point exactly one version of every sector, with the bytes that the disk had then.
import assert from 'node:assert/strict';
import type { SeededRandom } from '@midmirror/basis';
import { ask, type Bus } from '@midmirror/bus';

const SECTOR = 512;

/** A volume and the naive history of it. */
export interface Historied {
  random: SeededRandom;
  bus: Bus;
  volumeId: string;
  sizeBytes: number;
  /** Write `seq + 1` and those after it, in their order. */
  writesAfter(seq: number): Iterable<{ start: number; length: number }>;
  /** Whether the bytes of `[start, end)` were the same at two points. */
  same(one: number, other: number, start: number, end: number): boolean;
  snapshotSeqs(): Promise<number[]>;
}

/** While no guest writes. */
export async function checkHistory(volume: Historied, sectorsMax = 64): Promise<void> {
  const { random, bus, volumeId, sizeBytes } = volume;
  const length = SECTOR * (1 + random.below(sectorsMax));
  const offset = SECTOR * random.below((sizeBytes - length) / SECTOR + 1);
  const { versions, truncated } = await ask(bus, 'mapping-index.history', {
    ...{ volumeId, offset, length, limit: 10_000 },
  });
  assert.equal(truncated, false);
  const older = versions.filter((version) => version.seq === null);
  const mimSeq = Math.max(...older.map((version) => version.toSeq!));
  const expected: (number | null)[][] = [];
  let seq = mimSeq;
  for (const write of volume.writesAfter(mimSeq)) {
    seq += 1;
    const start = Math.max(write.start, offset);
    const end = Math.min(write.start + write.length, offset + length);
    if (start < end) expected.push([seq, start, end - start]);
  }
  const journaled = versions.filter((version) => version.seq !== null);
  assert.deepEqual(
    journaled.map((version) => [version.seq, version.offset, version.length]),
    expected.reverse(),
    `writes after ${mimSeq} on ${offset}+${length}`,
  );
  // Snapshots that have been dropped since are not looked at, those that have come since lie after the MIM's point.
  const points = [...(await volume.snapshotSeqs()).filter((point) => point < mimSeq), mimSeq];
  for (const point of points) {
    const times = new Uint8Array(length / SECTOR);
    for (const version of older) {
      if (version.fromSeq > point || version.toSeq! < point) continue;
      const end = version.offset + version.length;
      for (let at = version.offset; at < end; at += SECTOR) times[(at - offset) / SECTOR]! += 1;
      assert.ok(
        volume.same(point, version.toSeq!, version.offset, end),
        `${version.offset}+${version.length} was the same at ${point} and ${version.toSeq}`,
      );
    }
    assert.ok(
      times.every((count) => count === 1),
      `at write ${point} each sector of ${offset}+${length} has one version`,
    );
  }
}
