export {
  claimEpoch,
  type EpochClaim,
  newestClaim,
  soleClaim,
  soleWriter,
  type Writer,
} from './epoch-claim.ts';
export {
  type PoolFile,
  type PoolFiles,
  readBytes,
  readWhole,
  replaceFile,
  writeZeroes,
} from './files.ts';
export { readGaps, writeGaps } from './gap-file.ts';
export { ForgetfulFiles } from './forgetful-files.ts';
export {
  type CloneFile,
  readCloneFile,
  readVolumeFile,
  type VolumeFile,
  writeCloneFile,
  writeVolumeFile,
} from './json-files.ts';
export {
  objectName,
  parseObjectName,
  parseSegmentName,
  segmentName,
  segmentsOf,
  type VolumePaths,
  volumePaths,
} from './layout.ts';
export { limits as poolLimits } from './limits.ts';
export {
  createMim,
  GRANULE_BYTES,
  MimAllocation,
  MimWriter,
  readMimState,
  writeMimState,
} from './mim-file.ts';
export { MimImage } from './mim-image.ts';
export { MimStateFile, MimWatch } from './mim-watch.ts';
export { nodeFiles } from './node-files.ts';
export { ObjectWriter, readObject } from './object-file.ts';
export { LostPieceError, PieceReader } from './piece-reader.ts';
export {
  readSegmentFooter,
  readSegmentHeader,
  SegmentReader,
  verifyPiece,
} from './segment-file.ts';
