// Bounds of a rebuild.

export const limits = {
  /** In one transaction on PostgreSQL: the longest reading of the pool between two statements. */
  readingMsMax: 3_600_000,
} as const;
