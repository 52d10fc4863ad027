// Bounds of an archive. What a reader allocates never depends on what an archive claims beyond these.

export const limits = {
  /** Of one read from the volume and of one range that a reader gives. */
  pieceBytesMax: 2 ** 20,
  /** Reads that run while what was read before is on its way. */
  readsAheadMax: 4,
  /** 1 PiB: a map of 8 MiB in memory, and a refcount table that qemu still takes (8 MiB). */
  volumeBytesMax: 2 ** 50,
  manifestBytesMax: 256 * 1024,
  checksumsBytesMax: 64 * 1024,
  /** Pax records of one member. */
  paxBytesMax: 64 * 1024,
  /** Differences from an archive down to its image. */
  chainMax: 1024,
  archiveIdCharactersMax: 36,
  /** Recipients are listed in the header of age. */
  ageHeaderBytesMax: 64 * 1024,
  keysMax: 64,
  keyFileBytesMax: 64 * 1024,
  zstdLevelMax: 19,
  zstdLevel: 3,
  /** Level 19 needs a window of 8 MiB; an archive that wants a larger one is not ours. */
  zstdWindowLogMax: 23,
  layerChunkBytes: 256 * 1024,
} as const;
