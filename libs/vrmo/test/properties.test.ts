// VBMM, VBMJ and TreeVrmo against the naive twin, with all they promise checked after each step. Nodes are tiny here,
// so that a few dozen extents make a deep tree.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import fc from 'fast-check';
import type { RangeIndex } from '../range-index.ts';
import { sortAndJoin } from '../sort-and-join.ts';
import { TreeVrmo } from '../tree-vrmo.ts';
import { Vbmj } from '../vbmj.ts';
import { Vbmm } from '../vbmm.ts';
import { VrmoCursor } from '../vrmo-cursor.ts';
import type { Extent } from '../vrmo.ts';
import { BLOCK, emitAndMove, inclusive } from './blocks.ts';
import { NaiveVrmo } from './naive-vrmo.ts';

const BLOCKS = 240;
const SIZE_BYTES = BLOCKS * BLOCK;
const shape = fc.record({
  leafShift: fc.constantFrom(2, 3, 3, 6),
  fanShift: fc.constantFrom(2, 3, 8),
  slabShift: fc.constantFrom(1, 3, 9),
});

const extent: fc.Arbitrary<Extent> = fc
  .record({
    first: fc.nat(BLOCKS - 1),
    blocks: fc.oneof(
      { arbitrary: fc.integer({ min: 1, max: 3 }), weight: 12 },
      fc.integer({ min: 1, max: 40 }),
    ),
    flags: fc.constantFrom(
      ExtentFlag.whole,
      ExtentFlag.zero,
      ExtentFlag.whole | ExtentFlag.backward,
      ExtentFlag.zero | ExtentFlag.trim | ExtentFlag.backward,
    ),
    source: fc.nat(9),
    offset: fc.nat(1000),
  })
  .map(({ first, blocks, flags, source, offset }) => {
    const length = Math.min(blocks, BLOCKS - first) * BLOCK;
    // The checksum of a whole extent is its length here, so that a piece that claims to be whole is found out.
    return {
      start: first * BLOCK,
      length,
      flags,
      source,
      offset: flags & ExtentFlag.zero ? 0 : offset,
      crc: length,
    };
  });

type Step = { kind: 'move'; extent: Extent } | { kind: 'convert' } | { kind: 'onto'; lastSegment: number };
const moveStep = extent.map((moved): Step => ({ kind: 'move', extent: moved }));
const convertStep = fc.constant<Step>({ kind: 'convert' });
const ontoStep = fc.nat(9).map((lastSegment): Step => ({ kind: 'onto', lastSegment }));
const steps = fc.array(
  fc.oneof(
    { arbitrary: moveStep, weight: 30 },
    { arbitrary: convertStep, weight: 1 },
    { arbitrary: ontoStep, weight: 1 },
  ),
  { minLength: 1, maxLength: 120 },
);

function check(index: RangeIndex, naive: NaiveVrmo): void {
  index.tree.assertSound();
  checkPlaces(index, naive);
  checkRanges(index, naive);
  checkDepth(index);
}

/** Every block resolves as in the naive twin, walked from the beginning and sought one by one. */
function checkPlaces(index: RangeIndex, naive: NaiveVrmo): void {
  let covered = 0;
  let entries = 0;
  let previousEnd = 0;
  const cursor = new VrmoCursor({ index }, 0);
  for (; cursor.valid; cursor.next()) {
    assert.ok(cursor.start >= previousEnd && cursor.length > 0, 'extents are sorted and disjoint');
    previousEnd = cursor.end;
    entries += 1;
    const { start, end, flags, source, offset } = cursor;
    for (let at = start; at < end; at += BLOCK) {
      const place = naive.places[at / BLOCK];
      if (
        place?.flags !== (flags & ~ExtentFlag.whole) ||
        place.source !== source ||
        place.offset !== (flags & ExtentFlag.zero ? -1 : offset + at - start)
      )
        assert.deepEqual({ flags, source, offset, start, end }, place, `block ${at / BLOCK}`);
      covered += 1;
    }
    if (flags & ExtentFlag.zero) assert.equal(offset, 0, 'zeroes have no place that is cut');
    if (cursor.flags & ExtentFlag.whole) assert.equal(cursor.crc, cursor.length, 'a whole extent is whole');
  }
  assert.equal(covered, naive.places.filter((place) => place !== null).length, 'no block is lacking');
  assert.equal(entries, index.extentCount);
  for (let block = entries % 3; block < BLOCKS; block += 3) {
    cursor.seek(block * BLOCK + 7);
    const found: boolean = cursor.valid && cursor.start <= block * BLOCK;
    if (found !== (naive.places[block] !== null) || (found && cursor.end <= block * BLOCK))
      assert.fail(`block ${block} is ${found ? '' : 'not '}found`);
  }
}

/** The keys of a VBMM are the blocks on the MIM, those of a VBMJ the others: as few ranges as can be. */
function checkRanges(index: RangeIndex, naive: NaiveVrmo): void {
  const wanted: [number, number][] = [];
  naive.places.forEach((place, block) => {
    if ((place === null) !== (index.kind === 'VBMM')) return;
    const last = wanted.at(-1);
    if (last !== undefined && last[1] === block - 1) last[1] = block;
    else wanted.push([block, block]);
  });
  const ranges = (index as Vbmm | Vbmj).ranges();
  assert.deepEqual(inclusive(ranges), wanted);
  assert.equal(index.nodes, wanted.length);
  if (index.kind === 'VBMM')
    assert.equal(index.tree.size, index.nodes + index.extentCount, 'ranges and entries tile the volume');
  else assert.equal(index.tree.size, index.extentCount);
}

/** In the least shape, leaves hold 1 of 4 records at least and nodes 2 of 4 children, but for the right edge. */
function checkDepth(index: RangeIndex): void {
  assert.ok(index.tree.depth <= 2 + Math.ceil(Math.log2(index.tree.size + 1)), 'the depth is logarithmic');
}

function blocksOf(ranges: readonly number[]): number[] {
  return inclusive(ranges).flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, i) => first + i),
  );
}

for (const kind of ['VBMM', 'VBMJ'] as const) {
  test(`any moves, conversions and syncs leave a ${kind} as the naive twin`, () => {
    const property = fc.property(shape, steps, (nodes, walk) => {
      const naive = new NaiveVrmo(BLOCKS);
      let index: Vbmm | Vbmj = kind === 'VBMM' ? Vbmm.onMim(SIZE_BYTES, nodes) : new Vbmj(SIZE_BYTES, nodes);
      for (const step of walk) {
        const cursor = new VrmoCursor({ index }, 0);
        if (step.kind === 'move') {
          const emitted: number[] = [];
          emitAndMove(index, step.extent, emitted);
          const moved = naive.move(step.extent);
          assert.deepEqual(blocksOf(emitted), moved, 'what is emitted was on the MIM');
          assert.deepEqual(blocksOf(sortAndJoin(emitted)), moved);
        } else if (step.kind === 'convert') {
          index = (index.kind === 'VBMM' ? Vbmj : Vbmm).of(SIZE_BYTES, cursor, nodes);
        } else {
          const keeps = (flags: number, source: number): boolean =>
            (flags & ExtentFlag.backward) !== 0 || source > step.lastSegment;
          index = (index.kind === 'VBMM' ? Vbmm : Vbmj).of(SIZE_BYTES, cursor, nodes, keeps);
          naive.ontoMim(step.lastSegment);
        }
        check(index, naive);
      }
    });
    fc.assert(property, { numRuns: 2000 });
  });
}

const syncs = fc.array(
  fc.oneof(
    { arbitrary: fc.array(extent, { minLength: 1, maxLength: 6 }), weight: 20 },
    { arbitrary: ontoStep, weight: 1 },
  ),
  { minLength: 1, maxLength: 60 },
);

function mapOf(extents: readonly Extent[]): ExtentMap {
  const map = new ExtentMap();
  for (const { start, length, flags, source, offset, crc } of extents)
    map.putUnder(start, length, flags, source, offset, crc);
  return map;
}

test('a TreeVrmo is as the naive twin whatever it is keyed by, and walks over as the sizes ask for', () => {
  let conversions = 0;
  const property = fc.property(shape, fc.nat(3000), fc.array(extent), syncs, (nodes, memory, first, walk) => {
    const naive = new NaiveVrmo(BLOCKS);
    for (const moved of first) naive.move(moved);
    const vrmo = new TreeVrmo(mapOf(first), { sizeBytes: SIZE_BYTES, shape: nodes, memoryBytesMax: memory });
    check(vrmo.index, naive);
    for (const step of walk) {
      if (Array.isArray(step)) {
        const saved = mapOf(step);
        const movelist = vrmo.backwardMovelist(saved);
        check(vrmo.index, naive);
        vrmo.moveOffMim(saved);
        const moved = step.flatMap((one) => naive.move(one)).sort((a, b) => a - b);
        assert.deepEqual(blocksOf(movelist), moved, 'the backward movelist is what was on the MIM');
        for (let i = 2; i < movelist.length; i += 2)
          assert.ok(movelist[i - 2]! + movelist[i - 1]! < movelist[i]!, 'what makes one block is one move');
      } else if (step.kind === 'onto') {
        vrmo.moveOntoMim(step.lastSegment);
        naive.ontoMim(step.lastSegment);
      }
      check(vrmo.index, naive);
    }
    conversions += vrmo.conversions;
  });
  fc.assert(property, { numRuns: 2000 });
  assert.ok(conversions > 0, 'some of them were re-indexed');
});
