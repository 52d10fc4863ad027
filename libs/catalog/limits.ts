// Bounds of the catalogue.

export const limits = {
  /** Statements and transactions that wait for the one connection; more are refused as `unavailable`. */
  waitingMax: 4096,
  /** Pages of a run (of some 7 KiB) that one statement stores, and reads. */
  pagesPerInsert: 64,
  pagesPerRead: 16,
} as const;
