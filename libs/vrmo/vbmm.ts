// VBMM, the MIM-centric VRMO [0054]: a tree over the ranges that are still on the MIM, with the physical extent lists
// between them as their left and right children, all in the nodes of one multi-way tree (FIG. 19). Ranges and lists
// tile the volume, so no record has a length: it ends where the next one begins, and takes 20 bytes.
import { assert } from '@midmirror/basis';
import { MultiwayTree, TREE_SHAPE, type TreeShape } from './multiway-tree.ts';
import type { RangeIndex } from './range-index.ts';
import { type RangeChange, rowOfTableOne, TABLE_ONE } from './table-one.ts';
import type { Extent, PlaceCursor } from './vrmo.ts';
import { writePiece } from './write-piece.ts';

/** Flag of a record that is a range on the MIM; others are entries of a physical extent list. */
const ON_MIM = 256;
const RECORD_BYTES = 20;

export class Vbmm implements RangeIndex {
  readonly kind = 'VBMM';
  readonly tree: MultiwayTree;
  readonly sizeBytes: number;
  #ranges = 0;
  #extents = 0;

  private constructor(sizeBytes: number, shape: TreeShape) {
    this.sizeBytes = sizeBytes;
    this.tree = new MultiwayTree(3, shape);
  }

  /** A volume that lies on the MIM as a whole: one range [0066]. */
  static onMim(sizeBytes: number, shape: TreeShape = TREE_SHAPE): Vbmm {
    const vbmm = new Vbmm(sizeBytes, shape);
    vbmm.#appendRange(0);
    return vbmm;
  }

  /** Of ascending, disjoint extents; with `keeps`, of those that it names. Linear. */
  static of(
    sizeBytes: number,
    extents: PlaceCursor,
    shape: TreeShape = TREE_SHAPE,
    keeps: (flags: number, source: number) => boolean = () => true,
  ): Vbmm {
    const vbmm = new Vbmm(sizeBytes, shape);
    let at = 0;
    for (; extents.valid; extents.next()) {
      if (!keeps(extents.flags, extents.source)) continue;
      const { start, end } = extents;
      if (start > at) vbmm.#appendRange(at);
      writePiece(vbmm.tree, vbmm.tree.append(start), extents, start, end);
      vbmm.#extents += 1;
      at = end;
    }
    assert(at <= sizeBytes, 'extents lie in the volume');
    if (at < sizeBytes) vbmm.#appendRange(at);
    return vbmm;
  }

  /** Bytes of the records of a VBMM. */
  static recordBytes(ranges: number, extents: number): number {
    return RECORD_BYTES * (ranges + extents);
  }

  get nodes(): number {
    return this.#ranges;
  }

  get extentCount(): number {
    return this.#extents;
  }

  seek(address: number): number {
    const slot = this.tree.find(address);
    return slot >= 0 && this.#onMim(slot) ? this.next(slot) : slot;
  }

  next(slot: number): number {
    let next = this.tree.next(slot);
    while (next >= 0 && this.#onMim(next)) next = this.tree.next(next);
    return next;
  }

  endOf(slot: number): number {
    const next = this.tree.next(slot);
    return next < 0 ? this.sizeBytes : this.tree.startOf(next);
  }

  /** The ranges on the MIM, ascending: pairs of start and length in bytes. Linear. */
  ranges(): number[] {
    const ranges: number[] = [];
    for (let slot = this.tree.first(); slot >= 0; slot = this.tree.next(slot)) {
      const start = this.tree.startOf(slot);
      if (this.#onMim(slot)) ranges.push(start, this.endOf(slot) - start);
    }
    return ranges;
  }

  emit(start: number, length: number, emitted: number[]): void {
    this.#traverse(start, length, (_change, slot, from, to) => {
      emitted.push(from, to - from);
      return slot;
    });
  }

  /** Lists that become neighbours are one list from then on, their entries as they were [0076]. */
  move(moved: Extent): void {
    this.#traverse(moved.start, moved.length, (change, slot, from, to) =>
      this.#take(change, slot, moved, from, to),
    );
  }

  /**
   * Table I at each range that a move meets, from left to right: a recursion to the left ends in the list before the
   * range, where nothing is on the MIM any more; one to the right goes on with the next range. `emit` is told of each
   * overlap `[from, to)` with the slot of the range, and gives the slot to go on behind.
   */
  #traverse(
    start: number,
    length: number,
    emit: (change: RangeChange, slot: number, from: number, to: number) => number,
  ): void {
    const { tree } = this;
    assert(length > 0 && start >= 0 && start + length <= this.sizeBytes, 'a move lies in the volume');
    const mle = start + length - 1;
    let mls = start;
    for (let slot = tree.find(start); slot >= 0 && tree.startOf(slot) <= mle; slot = tree.next(slot)) {
      if (!this.#onMim(slot)) continue;
      const vbs = tree.startOf(slot);
      const vbe = this.endOf(slot) - 1;
      const row = TABLE_ONE[rowOfTableOne(mls, mle, vbs, vbe)]!;
      if (row.emit) slot = emit(row.change, slot, Math.max(mls, vbs), Math.min(mle, vbe) + 1);
      if (!row.right) return;
      mls = Math.max(mls, vbe + 1);
    }
  }

  /** Puts the piece `[from, to)` of a move in the place of that part of a range. Gives the slot of the piece. */
  #take(change: RangeChange, slot: number, moved: Extent, from: number, to: number): number {
    const { tree } = this;
    this.#extents += 1;
    switch (change) {
      case 'delete':
        this.#ranges -= 1;
        writePiece(tree, slot, moved, from, to);
        return slot;
      case 'high':
        // The record of the range becomes the piece's; the range gets a new one. No row goes on to the right.
        writePiece(tree, slot, moved, from, to);
        this.#writeRange(tree.open(slot, 1, to), to);
        return slot;
      case 'low': {
        const piece = tree.open(slot, 1, from);
        writePiece(tree, piece, moved, from, to);
        return piece;
      }
      case 'split': {
        const piece = tree.open(slot, 2, from);
        writePiece(tree, piece, moved, from, to);
        this.#writeRange(piece + 1, to);
        this.#ranges += 1;
        return piece;
      }
      case 'none':
        return slot;
    }
  }

  #onMim(slot: number): boolean {
    return (this.tree.flagsOf(slot) & ON_MIM) !== 0;
  }

  #appendRange(start: number): void {
    this.#writeRange(this.tree.append(start), start);
    this.#ranges += 1;
  }

  #writeRange(slot: number, start: number): void {
    this.tree.write(slot, start, ON_MIM, 0, 0, 0, 0);
  }
}
