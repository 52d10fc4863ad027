// Bounds of the mapping index, each with its unit.

export const limits = {
  /** Different points of one volume open at once; further ones are refused. */
  mirrorsPerVolumeMax: 64,
  /** Batch indexes of sealed segments kept for finding times and writes. */
  batchIndexesMax: 8,
  /** What `changes` reads of both points at once, and compares in steps of. */
  compareBytes: 1 << 20,
  sectorBytes: 512,
  /** Pieces of two maps compared for one answer: a few milliseconds. */
  comparedPiecesMax: 32_768,
  answersMax: 10_000,
  /** Snapshots that a walk through history reads at once. */
  snapshotsPerPage: 32,
  /** Extents that a slice of a merge looks at: about a millisecond. */
  mergeSliceExtents: 2048,
  /** Of the time that others leave of the event loop, and at least of all time: what slices of a merge may take. */
  mergeShareOfIdle: 0.5,
  mergeShareMin: 0.15,
  /** A slice's rest. */
  mergeRestMsMin: 1,
  mergeRestMsMax: 500,
  /** Pages of a merged run that are stored at once. */
  mergeInsertPages: 64,
  /** Extents that the trees of all open mirrors hold together (some 40 bytes each); further ones stay on the runs. */
  treeExtentsMax: 1_000_000,
  /** How much of a disk's allocation is looked up at once. */
  allocationStepBytes: 64 << 20,
  /** Places of two points are compared in steps that begin so long, and grow where there is little to see. */
  compareStepBytes: 1 << 20,
  compareStepBytesMax: 2 ** 30,
  comparePlacesFew: 256,
  /** Times that a read begins again because runs were replaced under it. */
  readTriesMax: 8,
  /** A clone's journal holds this many times the volume, so that shortening it always finds room. */
  cloneJournalFactor: 3,
  /** Segments of a clone's journal that guests leave to compaction. */
  cloneReserveSegments: 4,
  /** What compaction writes again while guests' writes wait. */
  cloneSliceBytes: 1 << 20,
  /** How long to wait before trying again when nothing could be freed. */
  cloneRetryMs: 50,
} as const;
