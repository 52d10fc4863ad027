export { type Catalog, type CatalogReader, type CatalogTransaction, openEmbeddedCatalog } from './catalog.ts';
export { coveringRuns, windowSpan } from './covering-runs.ts';
export { clonePinId, holderOf, type PinRequest, pinPoint, unpinPoint } from './pins.ts';
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
  CatalogSchema,
  CloneRow,
  MarkRow,
  MessageRow,
  PinRow,
  RunRow,
  SegmentRow,
  SnapshotRow,
  SyncRow,
  VolumeRow,
} from './schema.ts';
export {
  newestSnapshotOf,
  oldestSnapshotOf,
  openSnapshotOf,
  snapshotAbove,
  snapshotByNumber,
  snapshotOfSeq,
  snapshotsAround,
  snapshotsBelow,
  snapshotsOf,
  snapshotTally,
} from './snapshots.ts';
export { fromNs, toNs } from './time-column.ts';
export { syncUnderWay } from './syncs.ts';
export { volumeById, volumeByName } from './volumes.ts';
