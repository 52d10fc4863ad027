export { BatchBuilder } from './batch-builder.ts';
export {
  type Batch,
  batchAt,
  type Descriptor,
  DescriptorFlag,
  DescriptorKind,
  descriptorsIntact,
  descriptorsOf,
  packedBatches,
} from './batch.ts';
export { checksum, checksumOf } from './checksum.ts';
export { Format, PIECE_BYTES_MAX, pageAfter } from './format.ts';
export { decodeMark, encodeMark, type GapRecord, type MarkRecord } from './mark.ts';
export { decodeMimState, encodeMimState, type MimState } from './mim-state.ts';
export {
  decodeObjectFooter,
  decodeObjectHeader,
  encodeObjectFooter,
  encodeObjectHeader,
  type ObjectHeader,
  type ObjectTrailer,
  objectTrailer,
} from './object.ts';
export { putDescriptor } from './put-descriptor.ts';
export { type Recovered, recoverSegment } from './recovery.ts';
export {
  decodeSegmentFooter,
  decodeSegmentHeader,
  decodeSegmentTrailer,
  encodeSegmentFooter,
  encodeSegmentHeader,
  type SegmentBatch,
  type SegmentFooter,
  type SegmentHeader,
  segmentFooterBytesMax,
  segmentTrailer,
} from './segment.ts';
