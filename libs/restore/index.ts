export { type AwayOptions, whileAway } from './away.ts';
export { type PlannedRange, RangeList } from './core/range-list.ts';
export type { Progress, RecordFacts } from './core/record.ts';
export type { Digests } from './edges/compare.ts';
export {
  FileTarget,
  type FileFound,
  lookAtFile,
  makeFile,
  openFile,
  syncFolderOf,
} from './edges/file-target.ts';
export { MirrorSource, type MirrorSourceOptions } from './edges/mirror-source.ts';
export { openNbd } from './edges/nbd-target.ts';
export { readRecord, RecordFile } from './edges/record-file.ts';
export type { Target } from './edges/target.ts';
export {
  type Changes,
  type InPlaceRecord,
  InPlaceRestore,
  type InPlaceRun,
  type InPlaceVolume,
  UNDO_MARK,
  undoCommand,
} from './in-place.ts';
export { limits } from './limits.ts';
export {
  checkBase,
  type KnownBase,
  planByComparing,
  planKnown,
  planNew,
  probeRate,
  type Report,
} from './make-plan.ts';
export { move } from './move.ts';
export { PouredRestore, type PouredRange, Pouring, type PouringOptions, type PourWish } from './pour.ts';
export { lockTarget, recordPath, type TargetPlace, targetPlace } from './target-place.ts';
export { goesOn, type Plan, Restore, type RestoreWish } from './restore.ts';
export type { Moved } from './target-writes.ts';
