// VBMJ, the journal-centric VRMO [0056]: a tree over the ranges that lie in a journal, with their physical extent lists
// inside its nodes as in FIG. 19: a range is a row of subranges without a gap, each with its pointer to a physical
// extent. So a range and its list can't differ, and joining ranges [0082] moves nothing. A record takes 24 bytes.
import { assert } from '@midmirror/basis';
import { CollapseSet } from './collapse-set.ts';
import { MultiwayTree, TREE_SHAPE, type TreeShape } from './multiway-tree.ts';
import type { RangeIndex } from './range-index.ts';
import { rowOfTableTwo, TABLE_TWO } from './table-two.ts';
import type { Extent, PlaceCursor } from './vrmo.ts';
import { writePiece } from './write-piece.ts';

const RECORD_BYTES = 24;
const LENGTH_END = 2 ** 32;

export class Vbmj implements RangeIndex {
  readonly kind = 'VBMJ';
  readonly tree: MultiwayTree;
  readonly sizeBytes: number;
  /** C and R(C) of the last traversal: the subranges that it met or touched, and the gaps between. */
  readonly collapse = new CollapseSet();
  #ranges = 0;

  /** Of a volume that lies on the MIM as a whole: no ranges. */
  constructor(sizeBytes: number, shape: TreeShape = TREE_SHAPE) {
    this.sizeBytes = sizeBytes;
    this.tree = new MultiwayTree(4, shape);
  }

  /** Of ascending, disjoint extents [0077]; with `keeps`, of those that it names. Linear. */
  static of(
    sizeBytes: number,
    extents: PlaceCursor,
    shape: TreeShape = TREE_SHAPE,
    keeps: (flags: number, source: number) => boolean = () => true,
  ): Vbmj {
    const vbmj = new Vbmj(sizeBytes, shape);
    const { tree } = vbmj;
    let at = -1;
    for (; extents.valid; extents.next()) {
      if (!keeps(extents.flags, extents.source)) continue;
      const { start, end } = extents;
      assert(end - start < LENGTH_END, 'the length of an extent fits its word');
      if (start !== at) vbmj.#ranges += 1;
      writePiece(tree, tree.append(start), extents, start, end);
      at = end;
    }
    assert(at <= sizeBytes, 'extents lie in the volume');
    return vbmj;
  }

  /** Bytes of the records of a VBMJ. */
  static recordBytes(extents: number): number {
    return RECORD_BYTES * extents;
  }

  get nodes(): number {
    return this.#ranges;
  }

  get extentCount(): number {
    return this.tree.size;
  }

  seek(address: number): number {
    const slot = this.tree.find(address);
    if (slot < 0) return this.tree.first();
    return this.endOf(slot) > address ? slot : this.tree.next(slot);
  }

  next(slot: number): number {
    return this.tree.next(slot);
  }

  endOf(slot: number): number {
    return this.tree.startOf(slot) + this.tree.lengthOf(slot);
  }

  /** The ranges in a journal, ascending: pairs of start and length in bytes. Linear. */
  ranges(): number[] {
    const ranges: number[] = [];
    let end = -1;
    for (let slot = this.tree.first(); slot >= 0; slot = this.tree.next(slot)) {
      const start = this.tree.startOf(slot);
      if (start === end) ranges[ranges.length - 1]! += this.endOf(slot) - start;
      else ranges.push(start, this.endOf(slot) - start);
      end = this.endOf(slot);
    }
    return ranges;
  }

  /** The list is BJMC [0079]. */
  emit(start: number, length: number, emitted: number[]): void {
    this.#traverse(start, length, (before, from, to) => {
      emitted.push(from, to - from);
      return before;
    });
  }

  /** CP is the tree itself. */
  move(moved: Extent): void {
    assert(moved.length < LENGTH_END, 'the length of an extent fits its word');
    this.#traverse(moved.start, moved.length, (before, from, to) => this.#add(before, moved, from, to));
  }

  /**
   * Table II at each subrange that a move meets, from left to right. A recursion to the left ends in the gap before
   * the subrange, one to the right goes on with the next, or ends in the gap behind the last: what ends in a gap goes
   * into C, CP and BJMC [0081]. `emit` is told of it, `[from, to)`, with the slot before the gap (-1: before all), and
   * gives the slot that is before what follows.
   */
  #traverse(start: number, length: number, emit: (before: number, from: number, to: number) => number): void {
    const { tree } = this;
    assert(length > 0 && start >= 0 && start + length <= this.sizeBytes, 'a move lies in the volume');
    const fill = (before: number, from: number, to: number): number => {
      this.collapse.add(from, to);
      return emit(before, from, to);
    };
    this.collapse.clear();
    const mle = start + length - 1;
    let mls = start;
    let before = -1;
    let slot = tree.find(start);
    if (slot < 0) slot = tree.first();
    for (; slot >= 0; slot = tree.next(slot)) {
      const vbs = tree.startOf(slot);
      const vbe = this.endOf(slot) - 1;
      const row = TABLE_TWO[rowOfTableTwo(mls, mle, vbs, vbe)]!;
      if (row.collapse) this.collapse.add(vbs, vbe + 1);
      if (row.left) slot = this.#behind(fill(before, mls, Math.min(mle, vbs - 1) + 1));
      if (!row.right) return;
      mls = Math.max(mls, vbe + 1);
      before = slot;
    }
    fill(before, mls, mle + 1);
  }

  /**
   * Puts the piece `[from, to)` of a move into the gap behind a slot (-1: before all). Ranges that it touches become
   * one with it. Gives its slot.
   */
  #add(before: number, moved: Extent, from: number, to: number): number {
    const { tree } = this;
    const behind = this.#behind(before);
    this.#ranges += 1;
    if (before >= 0 && this.endOf(before) === from) this.#ranges -= 1;
    if (behind >= 0 && tree.startOf(behind) === to) this.#ranges -= 1;
    const piece = tree.open(before, 1, from);
    writePiece(tree, piece, moved, from, to);
    return piece;
  }

  /** The slot behind a slot; -1: before all. */
  #behind(slot: number): number {
    return slot < 0 ? this.tree.first() : this.tree.next(slot);
  }
}
