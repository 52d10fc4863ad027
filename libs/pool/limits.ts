// Bounds of the pool's claims, each with its unit.

export const limits = {
  /** How long a writer may go by its last look at the claims. */
  claimValidMs: 500,
  /** How long a new writer waits for answers of the one before: its look, and clocks that run apart. */
  claimSettleMs: 750,
  claimsKept: 64,
  claimBytesMax: 4096,
} as const;
