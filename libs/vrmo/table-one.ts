// Table I of [0067]: what a move does to one range that a VBMM still has on the MIM. Pure. In the patent's terms and
// its inclusive addresses: the move is [MLS, MLE], the range [VBS, VBE]. The rows are numbered as they are printed.

/** `high`: what remains is [MLE + 1, VBE]; `low`: [VBS, MLS - 1]; `split`: both. */
export type RangeChange = 'none' | 'delete' | 'high' | 'low' | 'split';

export interface TableOneRow {
  /** Recursion with what of the move lies before the range: [MLS, min(MLE, VBS - 1)]. */
  readonly left: boolean;
  /** Recursion with what of the move lies behind the range: [max(MLS, VBE + 1), MLE]. */
  readonly right: boolean;
  readonly change: RangeChange;
  /** Whether the overlap, [max(MLS, VBS), min(MLE, VBE)], is emitted as a physical extent list entry. */
  readonly emit: boolean;
}

/** By number of the row; there is no row 0. */
export const TABLE_ONE: readonly TableOneRow[] = [
  { left: false, right: false, change: 'none', emit: false },
  { left: true, right: false, change: 'none', emit: false },
  { left: false, right: true, change: 'none', emit: false },
  { left: false, right: false, change: 'delete', emit: true },
  { left: false, right: true, change: 'delete', emit: true },
  { left: false, right: false, change: 'high', emit: true },
  { left: false, right: false, change: 'low', emit: true },
  { left: false, right: true, change: 'low', emit: true },
  { left: false, right: false, change: 'split', emit: true },
  { left: true, right: false, change: 'delete', emit: true },
  { left: true, right: true, change: 'delete', emit: true },
  { left: true, right: false, change: 'high', emit: true },
];

/** Number of the row that holds, 1 to 11. Addresses are inclusive. */
export function rowOfTableOne(mls: number, mle: number, vbs: number, vbe: number): number {
  if (mle < vbs) return 1;
  if (mls > vbe) return 2;
  if (mls === vbs) return mle === vbe ? 3 : mle > vbe ? 4 : 5;
  if (mls > vbs) return mle === vbe ? 6 : mle > vbe ? 7 : 8;
  return mle === vbe ? 9 : mle > vbe ? 10 : 11;
}
