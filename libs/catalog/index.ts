export type { Catalog, CatalogReader, CatalogTransaction } from './catalog.ts';
export { coveringRuns, windowSpan } from './covering-runs.ts';
export { openEmbeddedCatalog } from './embedded-catalog.ts';
export { checkOf, checksOf, lastGoodOf, noteActed, verdictsOf } from './checks.ts';
export {
  clonePinId,
  holderOf,
  type PinRequest,
  pinPoint,
  pinsAfter,
  restorePinId,
  unpinPoint,
} from './pins.ts';
export { gapAtSeq, gapAtTime, gapsOf, openGapIn, storeGaps } from './gaps.ts';
export { forgetOldJobs, refuseTooManyJobs } from './jobs.ts';
export { markByName } from './marks.ts';
export { checkName, refuseTakenName } from './names.ts';
export {
  endOfExtent,
  firstEndingAfter,
  PAGE_WORDS,
  PageBuilder,
  type PelPage,
  packPages,
  putExtent,
  putPage,
  unpackPage,
} from './pel-page.ts';
export { openPostgresCatalog, type PostgresCatalogOptions } from './postgres-catalog.ts';
export {
  BUILDING,
  deleteForwardRuns,
  deleteRun,
  deleteRunById,
  insertPages,
  insertRun,
  leveledRunsOf,
  levelsOf,
  runCounts,
  loadRun,
  newestRunsWithin,
  pageAt,
  pagesAt,
  pagesOf,
  runOf,
  RunGoneError,
  runsAtEnd,
  runsOf,
  type RunSide,
  runsOfSnapshot,
  runsWithin,
  segmentsFrom,
  type StoredRun,
} from './runs.ts';
export type {
  ActivityRow,
  CheckJobRow,
  CatalogSchema,
  CloneRow,
  GapRow,
  MarkRow,
  MessageRow,
  PinRow,
  RunRow,
  SegmentRow,
  SnapshotRow,
  SyncRow,
  TapeArchiveRow,
  TapeJobRow,
  TapePartRow,
  VerdictRow,
  VolumeCheckRow,
  VolumeRow,
} from './schema.ts';
export {
  newestSnapshotOf,
  oldestSnapshotOf,
  openSnapshotOf,
  snapshotAbove,
  snapshotByNumber,
  snapshotOfSeq,
  snapshotOutside,
  snapshotsAround,
  snapshotsBelow,
  snapshotsOf,
  snapshotTally,
} from './snapshots.ts';
export { fromNs, toNs } from './time-column.ts';
export { syncUnderWay } from './syncs.ts';
export {
  tapeArchiveOf,
  tapeArchivesOf,
  isTapeBasePin,
  tapeBasePinId,
  tapeJobOf,
  tapeJobPinIds,
  tapePartsOf,
} from './tapes.ts';
export { activeVolumeById, activeVolumes, volumeById, volumeByName } from './volumes.ts';
