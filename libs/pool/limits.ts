// Bounds of the pool's claims and gaps, and of looks at a MIM, each with its unit.

export const limits = {
  /** How long a writer may go by its last look at the claims. */
  claimValidMs: 500,
  /** How long a new writer waits for answers of the one before: its look, and clocks that run apart. */
  claimSettleMs: 750,
  claimsKept: 64,
  claimBytesMax: 4096,
  /** Gaps of a volume that are kept, and what their file may take. */
  gapsMax: 1024,
  gapFileBytesMax: 2 << 20,
  /** How long a reader of the MIM may go by its last look at mim.state. */
  readerValidMs: 500,
  /** How long a sync of which readers have not heard waits before it writes: their look, and clocks that run apart. */
  readerSettleMs: 750,
} as const;
