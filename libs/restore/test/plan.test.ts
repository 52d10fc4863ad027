// The plan of a restore against a naive twin: nothing that differs is left out, zeroes are promised only where there
// are none but zeroes, and the pieces that are moved are the ranges, each byte once.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isZero } from '@midmirror/basis';
import fc from 'fast-check';
import { runsOf } from '../core/differing.ts';
import { type PlannedRange, RangeList } from '../core/range-list.ts';
import { endOf, windowsOf } from '../core/windows.ts';
import { NaiveRanges, type Sector } from './naive-ranges.ts';

const SECTOR = 512;
const SECTORS = 400;

interface Added {
  gap: number;
  count: number;
  zeroes: boolean;
}

const additions = fc.array(
  fc.record({
    gap: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 30 })),
    count: fc.integer({ min: 1, max: 12 }),
    zeroes: fc.boolean(),
  }),
  { maxLength: 60 },
);

function fill(additionsMade: readonly Added[], rangesMax: number, alignSectors: number) {
  const list = new RangeList({ rangesMax, alignBytes: alignSectors * SECTOR, sizeBytes: SECTORS * SECTOR });
  const naive = new NaiveRanges(SECTORS);
  let at = 0;
  for (const { gap, count, zeroes } of additionsMade) {
    const first = at + gap;
    if (first + count > SECTORS) break;
    list.add(first * SECTOR, count * SECTOR, zeroes);
    naive.add(first, count, zeroes);
    at = first + count;
  }
  return { list, naive };
}

function sectorsOf(ranges: Iterable<PlannedRange>): Sector[] {
  const twin = new NaiveRanges(SECTORS);
  for (const { startBytes, lengthBytes, zeroes } of ranges)
    twin.add(startBytes / SECTOR, lengthBytes / SECTOR, zeroes);
  return twin.sectors;
}

test('below its bound a list is exactly what was added', () => {
  fc.assert(
    fc.property(additions, (made) => {
      const { list, naive } = fill(made, 1000, 1);
      assert.deepEqual(sectorsOf(list), naive.sectors);
      const count = (kind: Sector): number => naive.sectors.filter((each) => each === kind).length * SECTOR;
      assert.deepEqual(list.bytes, { all: count('data') + count('zeroes'), data: count('data') });
    }),
  );
});

test('at its bound, or rounded to blocks, a list leaves nothing out and promises no zeroes that are none', () => {
  const shapes = fc.record({
    made: additions,
    rangesMax: fc.integer({ min: 2, max: 12 }),
    alignSectors: fc.constantFrom(1, 2, 8, 16),
  });
  fc.assert(
    fc.property(shapes, ({ made, rangesMax, alignSectors }) => {
      const { list, naive } = fill(made, rangesMax, alignSectors);
      assert.ok(list.count <= rangesMax, `${list.count} ranges of at most ${rangesMax}`);
      const planned = sectorsOf(list);
      for (const [i, kind] of naive.sectors.entries()) {
        if (kind !== 'same') assert.notEqual(planned[i], 'same', `sector ${i}`);
        if (planned[i] === 'zeroes') assert.equal(kind, 'zeroes', `sector ${i}`);
      }
      let end = 0;
      for (const { startBytes, lengthBytes } of list) {
        assert.ok(startBytes >= end && lengthBytes > 0, 'in order, apart');
        assert.equal(startBytes % (alignSectors * SECTOR), 0);
        end = startBytes + lengthBytes;
        assert.ok(end % (alignSectors * SECTOR) === 0 || end === SECTORS * SECTOR);
      }
    }),
  );
});

test('a list is the same after it was written down and read', () => {
  fc.assert(
    fc.property(additions, fc.integer({ min: 2, max: 100 }), (made, rangesMax) => {
      const { list } = fill(made, rangesMax, 1);
      const options = { rangesMax, alignBytes: SECTOR, sizeBytes: SECTORS * SECTOR };
      const again = RangeList.decode(list.encode(), options);
      assert.deepEqual([...again!], [...list]);
    }),
  );
});

test('zeroes that are rounded outwards stay zeroes but for their ends', () => {
  const list = new RangeList({ rangesMax: 8, alignBytes: 4096, sizeBytes: 10 * 4096 + 512 });
  list.add(512, 4096, false);
  list.add(3 * 4096 - 512, 3 * 4096, true);
  list.add(9 * 4096 + 512, 4096, true);
  assert.deepEqual(
    [...list].map(({ startBytes, lengthBytes, zeroes }) => [startBytes / 4096, lengthBytes, zeroes]),
    [
      [0, 3 * 4096, false],
      [3, 2 * 4096, true],
      [5, 4096, false],
      [9, 4096, false],
      [10, 512, true],
    ],
  );
});

test('bytes that are no list of ranges of this disk are refused', () => {
  const options = { rangesMax: 4, alignBytes: SECTOR, sizeBytes: 10 * SECTOR };
  const list = new RangeList(options);
  list.add(SECTOR, SECTOR, false);
  list.add(9 * SECTOR, SECTOR, true);
  const bytes = list.encode();
  assert.equal([...RangeList.decode(bytes, options)!].length, 2);
  assert.equal(RangeList.decode(bytes.subarray(1), options), null);
  assert.equal(RangeList.decode(bytes, { ...options, sizeBytes: 9 * SECTOR }), null);
  const swapped = Uint8Array.from([...bytes.subarray(16), ...bytes.subarray(0, 16)]);
  assert.equal(RangeList.decode(swapped, options), null);
});

test('windows hold each byte of the ranges from a place on once, in pieces within their bounds', () => {
  const shapes = fc.record({
    made: additions,
    from: fc.integer({ min: 0, max: SECTORS }),
    piece: fc.integer({ min: 1, max: 20 }),
    windowBytes: fc.integer({ min: 1, max: 50 }),
    windowPieces: fc.integer({ min: 1, max: 8 }),
  });
  fc.assert(
    fc.property(shapes, ({ made, from, piece, windowBytes, windowPieces }) => {
      const { list, naive } = fill(made, 1000, 1);
      const limits = {
        pieceBytesMax: piece * SECTOR,
        windowBytesMax: windowBytes * SECTOR,
        windowPiecesMax: windowPieces,
      };
      const windows = [...windowsOf(list, from * SECTOR, limits)];
      const wanted = naive.sectors.map((kind, i) => (i < from ? 'same' : kind));
      assert.deepEqual(sectorsOf(windows.flat()), wanted);
      let end = 0;
      for (const window of windows) {
        assert.ok(window.length > 0 && window.length <= windowPieces);
        for (const { startBytes, lengthBytes } of window) {
          assert.ok(startBytes >= end && lengthBytes <= limits.pieceBytesMax);
          end = startBytes + lengthBytes;
        }
        assert.equal(endOf(window), end);
      }
    }),
  );
});

test('runs of blocks are those that differ, cut at the end of the disk', () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1 }), fc.integer({ min: 1, max: 8 }), (differs, last) => {
      const length = (differs.length - 1) * 8 + last;
      const bytes = new Uint8Array(length);
      for (const run of runsOf(length, 8, (block) => differs[block]!))
        for (let i = 0; i < run.lengthBytes; i += 1) bytes[run.startBytes + i]! += 1;
      assert.deepEqual(
        [...bytes],
        Array.from(bytes, (_, i) => Number(differs[Math.floor(i / 8)])),
      );
    }),
  );
});

test('zero is told from not zero wherever the one byte lies', () => {
  const bytes = new Uint8Array(200_000);
  assert.ok(isZero(bytes));
  for (const at of [0, 1, 65_535, 65_536, 131_071, 199_999]) {
    bytes[at] = 1;
    assert.ok(!isZero(bytes), `byte ${at}`);
    bytes[at] = 0;
  }
});
