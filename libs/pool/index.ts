export { type PoolFile, type PoolFiles, readBytes, readWhole, replaceFile } from './files.ts';
export { ForgetfulFiles } from './forgetful-files.ts';
export {
  type CloneFile,
  objectName,
  parseCloneFile,
  parseObjectName,
  parseSegmentName,
  parseVolumeFile,
  segmentName,
  type VolumeFile,
  type VolumePaths,
  volumePaths,
} from './layout.ts';
export {
  createMim,
  GRANULE_BYTES,
  MimAllocation,
  MimWriter,
  readMimState,
  writeMimState,
} from './mim-file.ts';
export { MimImage } from './mim-image.ts';
export { nodeFiles } from './node-files.ts';
export { ObjectReader, ObjectWriter, readObject } from './object-file.ts';
export { PieceReader } from './piece-reader.ts';
export {
  readBatch,
  readSegmentFooter,
  readSegmentHeader,
  SegmentReader,
  verifyPiece,
} from './segment-file.ts';
