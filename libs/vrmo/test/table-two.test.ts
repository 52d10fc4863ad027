// Every row of Table II [0080], second text, in the patent's own inclusive numbers: the move is [MLS, MLE], the range
// [VBS, VBE].
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rowOfTableTwo, TABLE_TWO } from '../table-two.ts';
import { Vbmj } from '../vbmj.ts';
import { emitAndMove, inclusive, moveOf, VOLUME_BYTES } from './blocks.ts';

type Range = [first: number, last: number];

interface Case {
  row: number;
  name: string;
  move: Range;
  collapse: boolean;
  leftRecursion: Range | null;
  rightRecursion: Range | null;
  /** In a VBMJ whose only range is [20, 29]. */
  ranges: Range[];
  candidates: Range[];
}

/** All against the range [20, 29]. */
const VBS = 20;
const VBE = 29;
const cases: Case[] = [
  {
    row: 1,
    name: 'MLE < VBS - 1: left child with [MLS, MLE]',
    move: [10, 18],
    collapse: false,
    leftRecursion: [10, 18],
    rightRecursion: null,
    ranges: [
      [10, 18],
      [20, 29],
    ],
    candidates: [[10, 18]],
  },
  {
    row: 2,
    name: 'MLE = VBS - 1: into C, left child with [MLS, MLE]',
    move: [10, 19],
    collapse: true,
    leftRecursion: [10, 19],
    rightRecursion: null,
    ranges: [[10, 29]],
    candidates: [[10, 19]],
  },
  {
    row: 3,
    name: 'MLS > VBE + 1: right child with [MLS, MLE]',
    move: [31, 35],
    collapse: false,
    leftRecursion: null,
    rightRecursion: [31, 35],
    ranges: [
      [20, 29],
      [31, 35],
    ],
    candidates: [[31, 35]],
  },
  {
    row: 4,
    name: 'MLS = VBE + 1: into C, right child with [MLS, MLE]',
    move: [30, 35],
    collapse: true,
    leftRecursion: null,
    rightRecursion: [30, 35],
    ranges: [[20, 35]],
    candidates: [[30, 35]],
  },
  {
    row: 5,
    name: 'MLS >= VBS, MLE <= VBE: ends, the journal has it',
    move: [20, 29],
    collapse: false,
    leftRecursion: null,
    rightRecursion: null,
    ranges: [[20, 29]],
    candidates: [],
  },
  {
    row: 6,
    name: 'MLS in [VBS, VBE], MLE > VBE: into C, right child with [VBE + 1, MLE]',
    move: [29, 33],
    collapse: true,
    leftRecursion: null,
    rightRecursion: [30, 33],
    ranges: [[20, 33]],
    candidates: [[30, 33]],
  },
  {
    row: 7,
    name: 'MLS < VBS, MLE in [VBS, VBE]: into C, left child with [MLS, VBS - 1]',
    move: [15, 20],
    collapse: true,
    leftRecursion: [15, 19],
    rightRecursion: null,
    ranges: [[15, 29]],
    candidates: [[15, 19]],
  },
  {
    row: 8,
    name: 'MLS < VBS, MLE > VBE: into C, left child with [MLS, VBS - 1], right with [VBE + 1, MLE]',
    move: [15, 33],
    collapse: true,
    leftRecursion: [15, 19],
    rightRecursion: [30, 33],
    ranges: [[15, 33]],
    candidates: [
      [15, 19],
      [30, 33],
    ],
  },
];

for (const { row, name, move, collapse, leftRecursion, rightRecursion, ranges, candidates } of cases) {
  const [mls, mle] = move;
  test(`Table II, row ${row}: ${name}`, () => {
    assert.equal(rowOfTableTwo(mls, mle, VBS, VBE), row);
    const outcome = TABLE_TWO[row]!;
    assert.equal(outcome.collapse, collapse);
    assert.deepEqual(outcome.left ? [mls, Math.min(mle, VBS - 1)] : null, leftRecursion);
    assert.deepEqual(outcome.right ? [Math.max(mls, VBE + 1), mle] : null, rightRecursion);
  });

  test(`Table II, row ${row}, in a VBMJ: the only range is [20, 29]`, () => {
    const vbmj = new Vbmj(VOLUME_BYTES);
    vbmj.move(moveOf(VBS, VBE, 1));
    const out: number[] = [];
    emitAndMove(vbmj, moveOf(mls, mle, 2), out);
    assert.deepEqual(inclusive(vbmj.ranges()), ranges);
    assert.deepEqual(inclusive(out), candidates);
    assert.equal(vbmj.nodes, ranges.length);
    assert.equal(vbmj.collapse.size, candidates.length + (collapse ? 1 : 0));
  });
}

test('Table II in a VBMJ: R(C) reaches from the lowest start to the greatest end of all that one move joins', () => {
  const vbmj = new Vbmj(VOLUME_BYTES);
  for (const first of [10, 20, 30]) vbmj.move(moveOf(first, first + 4, first));
  const out: number[] = [];
  emitAndMove(vbmj, moveOf(15, 29, 2), out);
  assert.deepEqual(inclusive(out), [
    [15, 19],
    [25, 29],
  ]);
  assert.deepEqual(inclusive([vbmj.collapse.start, vbmj.collapse.end - vbmj.collapse.start]), [[10, 34]]);
  assert.equal(vbmj.collapse.size, 5);
  assert.deepEqual(inclusive(vbmj.ranges()), [[10, 34]]);
});
