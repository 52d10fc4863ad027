// Bounds of a cluster on one machine.

export const limits = {
  /** A service that has not ended so long after the signal is killed. */
  stopMsMax: 15_000,
  /** Before one that ended by itself is started again. */
  restartAfterMs: 500,
  ingestsMax: 16,
} as const;
