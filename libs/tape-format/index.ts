export { parseIdentities, parseRecipients } from './age-keys.ts';
export { checkStep } from './chain.ts';
export { encodeChecksums, type MemberChecksum } from './checksums.ts';
export type { LayerOptions } from './layers.ts';
export { limits } from './limits.ts';
export {
  type ArchiveKind,
  decodeManifest,
  encodeManifest,
  type LayerName,
  type Manifest,
  type TapeParent,
  type TapePoint,
  type TapeVolume,
} from './manifest.ts';
export { archiveName, dataMember } from './names.ts';
export type { TapeExtent } from './qcow2/cluster-runs.ts';
export { planQcow2, type Qcow2Piece, type Qcow2Plan, qcow2Pieces } from './qcow2/plan.ts';
export { LayoutMismatch, type RestoredRange, restoredRanges } from './qcow2/read.ts';
export {
  type ArchiveReading,
  type ArchiveSummary,
  openArchive,
  type ReadOptions,
  readManifest,
} from './read-archive.ts';
export type { TapeFault } from './tape-error.ts';
export {
  type ArchivePlan,
  type ArchiveRequest,
  ArchiveWriting,
  planArchive,
  type VolumeReads,
  type WrittenSummary,
} from './write-archive.ts';
