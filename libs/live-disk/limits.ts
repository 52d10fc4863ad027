// Bounds of a live disk, each with its unit.

export const limits = {
  /** Descriptors in one batch. */
  batchDescriptorsMax: 2048,
  /** Data in one batch; one larger request makes a batch of its own. */
  batchBytesMax: 8 << 20,
  /** Batches up to this size are written without a hop to the thread pool (3 µs against 19 µs for 4 KiB);
   *  larger ones asynchronously, so that a throttled disk does not stop the loop. */
  synchronousWriteBytesMax: 256 << 10,
  /** Batches of at least this much data begin in a page of their own while the last page is being synced; for
   *  smaller ones the space would cost more than the wait. */
  ownPageBytesMin: 64 << 10,
  /** Unsynced bytes at which a background fdatasync starts, and at which writers wait for it. */
  dirtyBytesSoft: 16 << 20,
  dirtyBytesMax: 1024 << 20,
  /** With no more unsynced bytes than this an fdatasync is done at once, on a disk that is quick. */
  quickCommitBytesMax: 64 << 10,
  quickCommitMsMax: 1,
  commitHopsAfterSlow: 4,
  /** After so many flushes in a row, each after at most so many writes, the next one is begun before it is asked for. */
  flushesExpectedAfter: 8,
  writesPerFlushFew: 4,
  /** Then, how long the loop looks out for that guest's next request rather than sleep. */
  lingerMs: 0.08,
  /** Segments kept ready ahead of the writer, at first and when it is fast. */
  segmentsAheadMin: 2,
  segmentsAheadMax: 16,
  /** Segments of which it is kept where each batch begins (8 bytes a batch), for reads of parts of a piece. */
  segmentReadersMax: 8,
  /** A new segment is written with zeroes in slices of this length. */
  zeroSliceBytes: 4 << 20,
  /** A segment of a writer that was displaced is copied in slices of this length. */
  copySliceBytes: 4 << 20,
  /** What an extent of the head map takes at most, for guessing before it is there. */
  headExtentBytes: 40,
  /** Of the sealed segments in the head map, one in so many is let go of at once. */
  evictedShare: 4,
  /** How much of a disk's allocation is looked up at once where the head map has nothing. */
  allocationStepBytes: 64 << 20,
  /** How long to wait before trying again to get space for a segment on a full disk. */
  fullDiskRetryMs: 500,
} as const;
