// The numbers of the on-disk formats. All integers are little-endian; 64-bit ones are two 32-bit words, low
// first. A released number never changes its meaning: a change of layout takes a new version.

export const Format = {
  version: 1,
  /** First word of each structure: "MIMB", "MIMS", … as bytes. */
  batchMagic: 0x424d494d,
  segmentMagic: 0x534d494d,
  segmentFooterMagic: 0x464d494d,
  segmentTrailerMagic: 0x544d494d,
  objectMagic: 0x4f4d494d,
  objectFooterMagic: 0x504d494d,
  objectTrailerMagic: 0x514d494d,
  mimStateMagic: 0x4d4d494d,
  batchHeaderBytes: 80,
  descriptorBytes: 24,
  segmentHeaderBytes: 4096,
  objectHeaderBytes: 4096,
  extentBytes: 20,
  batchIndexBytes: 24,
  trailerBytes: 32,
  mimStateSlotBytes: 4096,
  pageBytes: 4096,
} as const;

/** No descriptor and no object extent covers more data than this, so any read verifies a bounded piece. */
export const PIECE_BYTES_MAX = 32 * 1024;

/** The first page boundary at or after an offset. A batch may begin there instead of right after the last one. */
export function pageAfter(offset: number): number {
  return Math.ceil(offset / Format.pageBytes) * Format.pageBytes;
}
