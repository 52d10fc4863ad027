// Every row of Table I [0067], in the patent's own inclusive numbers: the move is [MLS, MLE], the range [VBS, VBE].
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rowOfTableOne, TABLE_ONE } from '../table-one.ts';
import { Vbmm } from '../vbmm.ts';
import { emitAndMove, inclusive, moveOf, VOLUME_BYTES } from './blocks.ts';

type Range = [first: number, last: number];

interface Case {
  row: number;
  name: string;
  move: Range;
  /** What of the range is left. */
  left: Range[];
  leftRecursion: Range | null;
  rightRecursion: Range | null;
  emitted: Range | null;
}

/** All against the range [20, 29]. */
const VBS = 20;
const VBE = 29;
const cases: Case[] = [
  {
    row: 1,
    name: 'MLE < VBS: left recursion with [MLS, MLE]',
    move: [10, 19],
    left: [[20, 29]],
    leftRecursion: [10, 19],
    rightRecursion: null,
    emitted: null,
  },
  {
    row: 2,
    name: 'MLS > VBE: right recursion with [MLS, MLE]',
    move: [30, 35],
    left: [[20, 29]],
    leftRecursion: null,
    rightRecursion: [30, 35],
    emitted: null,
  },
  {
    row: 3,
    name: 'MLS = VBS, MLE = VBE: delete',
    move: [20, 29],
    left: [],
    leftRecursion: null,
    rightRecursion: null,
    emitted: [20, 29],
  },
  {
    row: 4,
    name: 'MLS = VBS, MLE > VBE: delete, right recursion with [VBE + 1, MLE]',
    move: [20, 33],
    left: [],
    leftRecursion: null,
    rightRecursion: [30, 33],
    emitted: [20, 29],
  },
  {
    row: 5,
    name: 'MLS = VBS, MLE < VBE: shrink to [MLE + 1, VBE]',
    move: [20, 25],
    left: [[26, 29]],
    leftRecursion: null,
    rightRecursion: null,
    emitted: [20, 25],
  },
  {
    row: 6,
    name: 'MLS > VBS, MLE = VBE: shrink to [VBS, MLS - 1]',
    move: [24, 29],
    left: [[20, 23]],
    leftRecursion: null,
    rightRecursion: null,
    emitted: [24, 29],
  },
  {
    row: 7,
    name: 'MLS > VBS, MLE > VBE: shrink to [VBS, MLS - 1], right recursion with [VBE + 1, MLE]',
    move: [24, 33],
    left: [[20, 23]],
    leftRecursion: null,
    rightRecursion: [30, 33],
    emitted: [24, 29],
  },
  {
    row: 8,
    name: 'MLS > VBS, MLE < VBE: split into [VBS, MLS - 1] and [MLE + 1, VBE]',
    move: [24, 25],
    left: [
      [20, 23],
      [26, 29],
    ],
    leftRecursion: null,
    rightRecursion: null,
    emitted: [24, 25],
  },
  {
    row: 9,
    name: 'MLS < VBS, MLE = VBE: delete, left recursion with [MLS, VBS - 1]',
    move: [15, 29],
    left: [],
    leftRecursion: [15, 19],
    rightRecursion: null,
    emitted: [20, 29],
  },
  {
    row: 10,
    name: 'MLS < VBS, MLE > VBE: delete, both recursions',
    move: [15, 33],
    left: [],
    leftRecursion: [15, 19],
    rightRecursion: [30, 33],
    emitted: [20, 29],
  },
  {
    row: 11,
    name: 'MLS < VBS, MLE < VBE: shrink to [MLE + 1, VBE], left recursion with [MLS, VBS - 1]',
    move: [15, 25],
    left: [[26, 29]],
    leftRecursion: [15, 19],
    rightRecursion: null,
    emitted: [20, 25],
  },
];

function remains(change: string, [mls, mle]: Range): Range[] {
  const low: Range = [VBS, mls - 1];
  const high: Range = [mle + 1, VBE];
  if (change === 'none') return [[VBS, VBE]];
  if (change === 'delete') return [];
  return change === 'low' ? [low] : change === 'high' ? [high] : [low, high];
}

for (const { row, name, move, left, leftRecursion, rightRecursion, emitted } of cases) {
  const [mls, mle] = move;
  test(`Table I, row ${row}: ${name}`, () => {
    assert.equal(rowOfTableOne(mls, mle, VBS, VBE), row);
    const outcome = TABLE_ONE[row]!;
    assert.deepEqual(outcome.left ? [mls, Math.min(mle, VBS - 1)] : null, leftRecursion);
    assert.deepEqual(outcome.right ? [Math.max(mls, VBE + 1), mle] : null, rightRecursion);
    assert.deepEqual(remains(outcome.change, move), left);
    assert.deepEqual(outcome.emit ? [Math.max(mls, VBS), Math.min(mle, VBE)] : null, emitted);
  });

  test(`Table I, row ${row}, in a VBMM: only the range [20, 29] is on the MIM`, () => {
    const vbmm = Vbmm.onMim(VOLUME_BYTES);
    vbmm.move(moveOf(0, 19, 1));
    vbmm.move(moveOf(30, 99, 1));
    const out: number[] = [];
    emitAndMove(vbmm, moveOf(mls, mle, 2), out);
    assert.deepEqual(inclusive(vbmm.ranges()), left);
    assert.deepEqual(inclusive(out), emitted === null ? [] : [emitted]);
    assert.equal(vbmm.nodes, left.length);
  });
}

test('Table I in a VBMM: recursion to both sides goes on through further ranges', () => {
  const vbmm = Vbmm.onMim(VOLUME_BYTES);
  vbmm.move(moveOf(10, 14, 1));
  vbmm.move(moveOf(20, 24, 1));
  vbmm.move(moveOf(30, 34, 1));
  const out: number[] = [];
  emitAndMove(vbmm, moveOf(5, 40, 2), out);
  assert.deepEqual(inclusive(out), [
    [5, 9],
    [15, 19],
    [25, 29],
    [35, 40],
  ]);
  assert.deepEqual(inclusive(vbmm.ranges()), [
    [0, 4],
    [41, 99],
  ]);
});
