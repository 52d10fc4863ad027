// Bounds of reading runs, each with its unit.

export const limits = {
  /** Extents looked at to see whether a range is covered and no further run need be asked. */
  coverLookMax: 64,
  /** Runs whose page for an address is asked for in one statement. */
  pagesAtOnce: 32,
} as const;
