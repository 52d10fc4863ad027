// Table II of [0080]: what a move does where it meets one range that a VBMJ has in a journal. Pure. As the second text
// (2003/0135703) has it; the first one's is misprinted. Inclusive addresses: the move is [MLS, MLE], the range
// [VBS, VBE]. The rows are numbered as they are printed.

export interface TableTwoRow {
  /** The range goes into the collapse set C. */
  readonly collapse: boolean;
  /** Recursion with what of the move lies before the range: [MLS, min(MLE, VBS - 1)]. */
  readonly left: boolean;
  /** Recursion with what of the move lies behind the range: [max(MLS, VBE + 1), MLE]. */
  readonly right: boolean;
}

/** By number of the row; there is no row 0. */
export const TABLE_TWO: readonly TableTwoRow[] = [
  { collapse: false, left: false, right: false },
  { collapse: false, left: true, right: false },
  { collapse: true, left: true, right: false },
  { collapse: false, left: false, right: true },
  { collapse: true, left: false, right: true },
  { collapse: false, left: false, right: false },
  { collapse: true, left: false, right: true },
  { collapse: true, left: true, right: false },
  { collapse: true, left: true, right: true },
];

/** Number of the row that holds, 1 to 8. Addresses are inclusive. */
export function rowOfTableTwo(mls: number, mle: number, vbs: number, vbe: number): number {
  if (mle < vbs) return mle === vbs - 1 ? 2 : 1;
  if (mls > vbe) return mls === vbe + 1 ? 4 : 3;
  if (mls >= vbs) return mle <= vbe ? 5 : 6;
  return mle <= vbe ? 7 : 8;
}
