// The patent's figures in its own inclusive numbers, those that the text gives. The pictures are not part of the text:
// where a number is chosen here, the test says so.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RangeIndex } from '../range-index.ts';
import { sortAndJoin } from '../sort-and-join.ts';
import { Vbmj } from '../vbmj.ts';
import { Vbmm } from '../vbmm.ts';
import { VrmoCursor } from '../vrmo-cursor.ts';
import { BLOCK, emitAndMove, inclusive, moveOf } from './blocks.ts';

/** The figures' nodes run from 0 to 100. */
const SIZE_BYTES = 101 * BLOCK;

/** Entries of the physical extent lists: [first, last, source]. */
function entries(index: RangeIndex): [number, number, number][] {
  const list: [number, number, number][] = [];
  for (let slot = index.seek(0); slot >= 0; slot = index.next(slot)) {
    const start = index.tree.startOf(slot);
    const [range] = inclusive([start, index.endOf(slot) - start]);
    list.push([...range!, index.tree.sourceOf(slot)]);
  }
  return list;
}

/** The VBMM and the PEL that FIG. 11 ends with. */
function figure11(): { vbmm: Vbmm; pel: number[] } {
  const vbmm = Vbmm.onMim(SIZE_BYTES);
  const pel: number[] = [];
  emitAndMove(vbmm, moveOf(8, 11, 1), pel);
  emitAndMove(vbmm, moveOf(5, 13, 2), pel);
  return { vbmm, pel };
}

test('FIG. 11 [0068]: move 1102 splits node 1100 (0:100) into 1110 and 1111 (12:100)', () => {
  // The text gives (12:100) and, by the input range (8:13) of the next move, the end of 1110. So move 1102 is (8:11).
  const vbmm = Vbmm.onMim(SIZE_BYTES);
  const pel: number[] = [];
  emitAndMove(vbmm, moveOf(8, 11, 1), pel);
  assert.deepEqual(inclusive(vbmm.ranges()), [
    [0, 7],
    [12, 100],
  ]);
  assert.deepEqual(inclusive(pel), [[8, 11]]);
});

test('FIG. 11 [0069]-[0070]: move 1118 shortens 1110, then, as (8:13), the beginning of 1111', () => {
  // The start of move 1118 is chosen: 5, within node 1110.
  const { vbmm, pel } = figure11();
  assert.deepEqual(inclusive(vbmm.ranges()), [
    [0, 4],
    [14, 100],
  ]);
  assert.deepEqual(inclusive(pel), [
    [8, 11],
    [5, 7],
    [12, 13],
  ]);
});

test('FIG. 12 [0071]: the PEL of FIG. 11, sorted and joined, is the backward movelist with one move', () => {
  const { pel } = figure11();
  assert.deepEqual(inclusive(sortAndJoin(pel)), [[5, 13]]);
});

test('FIG. 12 [0071]: only entries that make one block of addresses are joined', () => {
  // Numbers chosen.
  const pel = [
    [40, 44],
    [10, 19],
    [30, 39],
    [20, 24],
    [26, 29],
  ].flatMap(([first, last]) => [first! * BLOCK, (last! - first! + 1) * BLOCK]);
  assert.deepEqual(inclusive(sortAndJoin(pel)), [
    [10, 24],
    [26, 44],
  ]);
});

test('FIG. 14 [0073]: the backward movelist stands in the new VBMM as physical extents', () => {
  const { pel } = figure11();
  const vbmm = Vbmm.onMim(SIZE_BYTES);
  for (const [first, last] of inclusive(sortAndJoin(pel))) vbmm.move(moveOf(first, last, 7));
  assert.deepEqual(inclusive(vbmm.ranges()), [
    [0, 4],
    [14, 100],
  ]);
  assert.deepEqual(entries(vbmm), [[5, 13, 7]]);
});

test('FIG. 16 [0076]: an older VBMM takes new physical extents that coexist with older neighbours, uncombined', () => {
  // The VBMM of FIG. 14; the next sync saves, by chosen numbers, (2:4) and (14:20) as its object 8.
  const vbmm = Vbmm.onMim(SIZE_BYTES);
  vbmm.move(moveOf(5, 13, 7));
  const pel: number[] = [];
  emitAndMove(vbmm, moveOf(2, 20, 8), pel);
  assert.deepEqual(inclusive(pel), [
    [2, 4],
    [14, 20],
  ]);
  assert.deepEqual(entries(vbmm), [
    [2, 4, 8],
    [5, 13, 7],
    [14, 20, 8],
  ]);
  assert.deepEqual(inclusive(vbmm.ranges()), [
    [0, 1],
    [21, 100],
  ]);
  // The place of what follows the older neighbour is cut along with it.
  assert.equal(vbmm.tree.offsetOf(vbmm.seek(14 * BLOCK)), 12 * BLOCK);
});

test('FIG. 17 [0087]: move (42:48) meets node 1720, becomes (46:48), and R(C) is [39, 48]', () => {
  // By the text node 1720 begins at 39 and ends at 45. Node 1711 is chosen: (10:20).
  const vbmj = new Vbmj(SIZE_BYTES);
  vbmj.move(moveOf(10, 20, 1));
  vbmj.move(moveOf(39, 45, 2));
  const candidates: number[] = [];
  emitAndMove(vbmj, moveOf(42, 48, 3), candidates);
  const { collapse } = vbmj;
  assert.deepEqual(inclusive(candidates), [[46, 48]]);
  assert.equal(collapse.size, 2, 'C holds the range of node 1720 and the shortened move');
  assert.deepEqual(inclusive([collapse.start, collapse.end - collapse.start]), [[39, 48]]);
  assert.deepEqual(inclusive(vbmj.ranges()), [
    [10, 20],
    [39, 48],
  ]);
  assert.deepEqual(entries(vbmj), [
    [10, 20, 1],
    [39, 45, 2],
    [46, 48, 3],
  ]);
});

test('FIG. 18 [0085]: an older VBMJ takes the backward movelist of a younger one, pointing to what that saved', () => {
  // Numbers chosen.
  const younger = new Vbmj(SIZE_BYTES);
  const older = new Vbmj(SIZE_BYTES);
  older.move(moveOf(30, 39, 1));
  const candidates: number[] = [];
  for (const [first, last] of [
    [50, 54],
    [25, 49],
  ])
    emitAndMove(younger, moveOf(first!, last!, 9), candidates);
  const movelist = inclusive(sortAndJoin(candidates));
  assert.deepEqual(movelist, [[25, 54]]);
  for (const [first, last] of movelist) older.move(moveOf(first, last, 9));
  assert.deepEqual(entries(older), [
    [25, 29, 9],
    [30, 39, 1],
    [40, 54, 9],
  ]);
  assert.deepEqual(inclusive(older.ranges()), [[25, 54]]);
});

test('FIG. 6 [0077]: each PEL of a VBMM becomes a node of the VBMJ, from its first entry to its last; and back', () => {
  // Numbers chosen.
  const vbmm = Vbmm.onMim(SIZE_BYTES);
  for (const [first, last, source] of [
    [20, 29, 1],
    [30, 34, 2],
    [50, 50, 3],
    [90, 100, 4],
  ])
    vbmm.move(moveOf(first!, last!, source!));
  const vbmj = Vbmj.of(SIZE_BYTES, new VrmoCursor({ index: vbmm }, 0));
  assert.deepEqual(inclusive(vbmj.ranges()), [
    [20, 34],
    [50, 50],
    [90, 100],
  ]);
  assert.deepEqual(entries(vbmj), entries(vbmm));
  const back = Vbmm.of(SIZE_BYTES, new VrmoCursor({ index: vbmj }, 0));
  assert.deepEqual(inclusive(back.ranges()), inclusive(vbmm.ranges()));
  assert.deepEqual(entries(back), entries(vbmm));
});

test('FIG. 19 [0089]: one node stands for a contiguous range of several physical subranges', () => {
  const vbmj = new Vbmj(1000 * BLOCK);
  const subranges: [number, number, number][] = [
    [40, 66, 1906],
    [67, 79, 1908],
    [80, 300, 1909],
    [301, 859, 1911],
  ];
  for (const [first, last, source] of subranges) vbmj.move(moveOf(first, last, source));
  assert.equal(vbmj.nodes, 1);
  assert.deepEqual(inclusive(vbmj.ranges()), [[40, 859]]);
  assert.deepEqual(entries(vbmj), subranges);
});
