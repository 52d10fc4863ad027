// Bounds of a restore. Its memory is these together, whatever the size of the volume.

export const limits = {
  /** Of a plan: beyond it ranges that lie near each other become one, and bytes that are the same are moved too. */
  rangesMax: 1 << 18,
  sectorBytes: 512,
  /** Of one read of the mirror and one write of the target. */
  pieceBytesMax: 1 << 20,
  /** Pieces on their way at one time; each has a buffer of its own. */
  piecesInFlightMax: 24,
  /** What is flushed, read back and noted as done together. Two windows are under way at one time. */
  windowBytesMax: 64 << 20,
  windowPiecesMax: 4096,
  /** Pieces read back at one time. */
  readsBackMax: 8,
  /** Of a new file: a block of zeroes is left out of it. */
  holeBytes: 64 << 10,
  /** One digest. */
  compareBlockBytes: 64 << 10,
  /** Compared as one, and how many of them at one time. */
  compareChunkBytes: 16 << 20,
  compareChunksMax: 3,
  connectionsDefault: 4,
  connectionsMax: 16,
  /** One question for the status of blocks; a multiple of every block size. */
  statusBytesMax: 0x7fff0000,
  /** How long an appliance may be away in the middle. */
  awaySecondsDefault: 120,
  awaySecondsMax: 86_400,
  /** A point that has gone between its choice and its opening is chosen again. */
  openTriesMax: 3,
  /** Read for the rate that a plan tells. */
  probeBytesMax: 16 << 20,
  /** Blocks that are the same by the map, looked at to see whether the target is what it is said to be. */
  spotChecks: 64,
  spotCheckBytes: 4096,
  /** Of a record: its facts. */
  factsBytesMax: 64 << 10,
  /** Extents that differ, of one answer of the appliance. */
  changesPerAnswer: 10_000,
  progressEveryMs: 250,
} as const;
