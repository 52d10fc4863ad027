// What the two kinds of VRMO have in common: a tree whose records are walked by slot. A cursor and a conversion need
// no more of them than this.
import type { MultiwayTree } from './multiway-tree.ts';
import type { Extent } from './vrmo.ts';

/** What a range map is keyed by: the ranges still on the MIM [0054], or those in a journal [0056]. */
export type VrmoKind = 'VBMM' | 'VBMJ';

export interface RangeIndex {
  readonly kind: VrmoKind;
  readonly tree: MultiwayTree;
  /** Ranges that it is keyed by: of the MIM in a VBMM, of the journals in a VBMJ. */
  readonly nodes: number;
  /** Entries of all physical extent lists. */
  readonly extentCount: number;
  /** Slot of the first extent in a journal that ends after an address; -1: there is none. */
  seek(address: number): number;
  /** Slot of the next extent in a journal; -1: there is none. */
  next(slot: number): number;
  /** Where the extent in a slot ends, exclusive. */
  endOf(slot: number): number;
  /**
   * What of a range is still on the MIM: appends it to a physical extent list, as pairs of start and length in bytes,
   * in ascending order. Changes nothing.
   */
  emit(start: number, length: number, emitted: number[]): void;
  /** A move off the MIM: what `emit` gives of the extent's range lies where the extent says from now on. */
  move(moved: Extent): void;
}
