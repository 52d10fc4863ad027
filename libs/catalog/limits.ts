// Bounds of the catalogue.

export const limits = {
  /** Statements and transactions that wait for the one connection; more are refused as `unavailable`. */
  waitingMax: 4096,
} as const;
