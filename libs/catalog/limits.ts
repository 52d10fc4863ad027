// Bounds of the catalogue.

export const limits = {
  /** Statements and transactions that wait for the one connection; more are refused as `unavailable`. */
  waitingMax: 4096,
  /** Pages of a run (of 12 KiB) that one statement stores. */
  pagesPerInsert: 16,
} as const;
