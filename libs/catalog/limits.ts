// Bounds of the catalogue.

export const limits = {
  /** Statements and transactions that wait for a connection; more are refused as `unavailable`. */
  waitingMax: 4096,
  /** Pages of a run (of some 7 KiB) that one statement stores, and reads. */
  pagesPerInsert: 64,
  pagesPerRead: 16,
  /** Between two attempts to reach PostgreSQL. */
  retryMsMin: 50,
  retryMsMax: 1000,
  /** Of one transaction that PostgreSQL rolls back because of another. */
  attemptsMax: 5,
  /** A process that migrates and asks nothing for so long has been stopped. */
  migratingIdleMs: 60_000,
} as const;
