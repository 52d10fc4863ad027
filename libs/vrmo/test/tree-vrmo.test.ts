// Which kind a VRMO is, when it is re-indexed and when not; and that its tree stays flat and small in nodes of the size
// that is used.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import type { RangeIndex } from '../range-index.ts';
import { TreeVrmo } from '../tree-vrmo.ts';
import { Vbmj } from '../vbmj.ts';
import { Vbmm } from '../vbmm.ts';

const BLOCK = 4096;
const BLOCKS = 1 << 20;
const SIZE_BYTES = BLOCKS * BLOCK;

/** `count` blocks from `first` on, `step` blocks apart, each an extent of its own. */
function blocks(first: number, count: number, step: number, source = 1): ExtentMap {
  const map = new ExtentMap();
  for (let i = 0; i < count; i += 1)
    map.put((first + i * step) * BLOCK, BLOCK, ExtentFlag.whole, source, i * BLOCK, i);
  return map;
}

/** Extents in rows of `each` without a gap, and a block on the MIM behind each row: ranges / extents = 1 / each. */
function rows(count: number, each: number): ExtentMap {
  const map = new ExtentMap();
  for (let i = 0; i < count * each; i += 1) {
    const block = i + Math.floor(i / each);
    map.put(block * BLOCK, BLOCK, ExtentFlag.whole, i % each, i, 0);
  }
  return map;
}

test('an untouched volume is a VBMM with one node [0066]', () => {
  const vrmo = new TreeVrmo(new ExtentMap(), { sizeBytes: SIZE_BYTES });
  assert.deepEqual([vrmo.kind, vrmo.nodes, vrmo.depth, vrmo.conversions], ['VBMM', 1, 1, 0]);
  assert.ok(vrmo.memoryBytes < 4096);
  assert.equal(vrmo.cursor(0).valid, false);
});

test('scattered extents start as a VBMJ, long lists as a VBMM: whichever is smaller', () => {
  const scattered = new TreeVrmo(blocks(0, 5000, 7), { sizeBytes: SIZE_BYTES });
  assert.deepEqual([scattered.kind, scattered.nodes], ['VBMJ', 5000]);
  const long = new TreeVrmo(blocks(100, 5000, 1), { sizeBytes: SIZE_BYTES });
  assert.deepEqual([long.kind, long.nodes], ['VBMM', 2]);
});

test('it is re-indexed when the other kind has become smaller: when lists are short, and when they have grown', () => {
  const vrmo = new TreeVrmo(new ExtentMap(), { sizeBytes: SIZE_BYTES });
  vrmo.moveOffMim(blocks(0, 2000, 2));
  assert.deepEqual([vrmo.kind, vrmo.nodes, vrmo.conversions], ['VBMJ', 2000, 1]);
  vrmo.moveOffMim(blocks(1, 2000, 2));
  assert.deepEqual([vrmo.kind, vrmo.nodes, vrmo.conversions], ['VBMM', 1, 2]);
  assert.equal(vrmo.extentCount, 4000);
});

test('a VRMO whose lists return to the MIM is re-indexed too', () => {
  const map = blocks(0, 2000, 2, 1);
  for (const c = blocks(1, 2000, 2, 2).cursor(); c.valid; c.next())
    map.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
  const vrmo = new TreeVrmo(map, { sizeBytes: SIZE_BYTES });
  assert.equal(vrmo.kind, 'VBMM');
  vrmo.moveOntoMim(1);
  assert.deepEqual([vrmo.kind, vrmo.nodes, vrmo.conversions], ['VBMJ', 2000, 1]);
});

test('a sync that returns a part to the MIM leaves the kind alone when that is still the smaller', () => {
  const map = blocks(0, 2000, 4, 1);
  for (const c = blocks(2, 2000, 4, 2).cursor(); c.valid; c.next())
    map.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
  const vrmo = new TreeVrmo(map, { sizeBytes: SIZE_BYTES });
  vrmo.moveOntoMim(1);
  assert.deepEqual([vrmo.kind, vrmo.nodes, vrmo.extentCount, vrmo.conversions], ['VBMJ', 2000, 2000, 0]);
});

test('between the two it stays what it is, however often it passes the point where both are equal', () => {
  // Both take the same at 5 extents a range; rows of 4 and of 6 lie on either side of it.
  for (const [each, kind] of [
    [4, 'VBMJ'],
    [6, 'VBMM'],
  ] as const) {
    const vrmo = new TreeVrmo(rows(2000, each), { sizeBytes: SIZE_BYTES });
    const passed = new Set<boolean>();
    for (let sync = 0; sync < 20; sync += 1) {
      // Long lists make the VBMM the smaller, then scattered extents the VBMJ.
      const dense = sync % 2 === 0;
      vrmo.moveOffMim(blocks(100_000 + sync * 10_000, dense ? 3000 : 900, dense ? 1 : 3, 99));
      passed.add(vrmo.extentCount > 5 * vrmo.nodes);
      assert.equal(vrmo.kind, kind);
    }
    assert.equal(vrmo.conversions, 0);
    assert.equal(passed.size, 2);
  }
});

test('beyond a size in memory it is re-indexed even for a small gain, once (claim 18)', () => {
  // Rows of 6 and then single extents: less than 5 extents a range, but not less than 4.
  for (const [memoryBytesMax, kind, conversions] of [
    [1 << 20, 'VBMM', 0],
    [1 << 16, 'VBMJ', 1],
  ] as const) {
    const vrmo = new TreeVrmo(rows(1600, 6), { sizeBytes: SIZE_BYTES, memoryBytesMax });
    assert.equal(vrmo.kind, 'VBMM');
    for (let sync = 0; sync < 6; sync += 1) vrmo.moveOffMim(blocks(100_000 + sync * 1000, 100, 2, 99));
    assert.deepEqual([vrmo.kind, vrmo.conversions], [kind, conversions]);
    // A list that makes the VBMM the smaller again by a little.
    vrmo.moveOffMim(blocks(500_000, 900, 1, 99));
    assert.ok(vrmo.extentCount > 5 * (kind === 'VBMM' ? vrmo.nodes : vrmo.nodes + 1));
    assert.deepEqual([vrmo.kind, vrmo.conversions], [kind, conversions]);
  }
});

test('a cursor made before a conversion seeks right after it', () => {
  const vrmo = new TreeVrmo(new ExtentMap(), { sizeBytes: SIZE_BYTES });
  const cursor = vrmo.cursor(0);
  vrmo.moveOffMim(blocks(0, 2000, 2));
  assert.equal(vrmo.conversions, 1);
  vrmo.moveOffMim(blocks(10_001, 1, 1, 5));
  assert.equal(cursor.seek(10_000 * BLOCK).source, 5);
  cursor.seek(1000 * BLOCK + 512);
  assert.deepEqual(
    [cursor.start, cursor.length, cursor.end, cursor.flags, cursor.source, cursor.offset, cursor.crc],
    [1000 * BLOCK, BLOCK, 1001 * BLOCK, ExtentFlag.whole, 1, 500 * BLOCK, 500],
  );
  cursor.next();
  assert.equal(cursor.start, 1002 * BLOCK);
});

test('addresses beyond 4 GiB and extents near 4 GiB keep their numbers in both kinds, without a size given', () => {
  const long = 2 ** 32 - 512;
  const moved = {
    start: 2 ** 44,
    length: long,
    flags: ExtentFlag.whole,
    source: 2 ** 32 - 1,
    offset: 2 ** 31,
    crc: 9,
  };
  for (const index of [Vbmm.onMim(2 ** 52), new Vbmj(2 ** 52)]) {
    index.move({ ...moved, start: 2 ** 44 + 4096, length: 512, source: 7, offset: 512 });
    index.move(moved);
    const slots = [index.seek(0)];
    for (let slot = slots[0]!; (slot = index.next(slot)) >= 0; ) slots.push(slot);
    const { tree } = index;
    assert.deepEqual(
      slots.map((slot) => [tree.startOf(slot), index.endOf(slot), tree.sourceOf(slot), tree.offsetOf(slot)]),
      [
        [2 ** 44, 2 ** 44 + 4096, 2 ** 32 - 1, 2 ** 31],
        [2 ** 44 + 4096, 2 ** 44 + 4608, 7, 512],
        [2 ** 44 + 4608, 2 ** 44 + long, 2 ** 32 - 1, 2 ** 31 + 4608],
      ],
    );
  }
});

test('a move that leaves the volume is a programmer error', () => {
  const moved = { start: 0, length: 1024, flags: 0, source: 0, offset: 0, crc: 0 };
  for (const index of [Vbmm.onMim(1024), new Vbmj(1024)]) {
    assert.throws(() => index.move({ ...moved, start: 512 }), /lies in the volume/);
    assert.throws(() => index.move({ ...moved, length: 0 }), /lies in the volume/);
  }
});

const COUNT = 1 << 16;
const orders: Record<string, (i: number) => number> = {
  ascending: (i) => i,
  descending: (i) => COUNT - 1 - i,
  // An odd factor permutes them.
  scattered: (i) => (i * 40_503) % COUNT,
  'from the middle outwards': (i) => (COUNT >> 1) + (i % 2 === 0 ? i >> 1 : -((i + 1) >> 1)),
};
for (const [name, order] of Object.entries(orders)) {
  test(`a disk rewritten block by block, ${name}: one list of many entries in a flat tree`, () => {
    for (const make of [() => Vbmm.onMim(COUNT * BLOCK), () => new Vbmj(COUNT * BLOCK)]) {
      const index: RangeIndex = make();
      for (let i = 0; i < COUNT; i += 1)
        index.move({ start: order(i) * BLOCK, length: BLOCK, flags: 0, source: i, offset: 0, crc: 0 });
      assert.equal(index.extentCount, COUNT);
      assert.equal(index.nodes, index.kind === 'VBMM' ? 0 : 1);
      assert.ok(index.tree.depth <= 3, `${index.tree.depth} levels`);
      index.tree.assertSound();
    }
  });
}

test('scattered extents take less than 45 bytes each, and a lookup passes three nodes', () => {
  const random = new SeededRandom(7);
  const vrmo = new TreeVrmo(new ExtentMap(), { sizeBytes: SIZE_BYTES });
  for (let sync = 0; sync < 10; sync += 1) {
    const saved = new ExtentMap();
    for (let i = 0; i < 10_000; i += 1) saved.put(random.below(BLOCKS) * BLOCK, BLOCK, 0, sync, 0, 0);
    vrmo.moveOffMim(saved);
  }
  assert.equal(vrmo.kind, 'VBMJ');
  assert.ok(vrmo.memoryBytes / vrmo.extentCount < 45, `${vrmo.memoryBytes / vrmo.extentCount} bytes`);
  assert.ok(vrmo.depth <= 3);
});
