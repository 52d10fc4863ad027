// A batch: what arrived together. Header, descriptors, data; written with one writev. The header carries the
// checksum of its descriptors and of the header before it, each descriptor that of its data, so a reader
// knows where the journal really ends. Layout (bytes):
//
//   0 magic · 4 version · 8 epoch · 16 segment · 20 offset of this batch in the segment · 24 first seq
//   32 time of the first write (ns) · 40 seq known durable when this batch was built · 48 descriptors
//   52 writes · 56 data bytes · 60 checksum of the descriptors · 64 checksum of the header before · 76 of this
//
//   descriptor: 0 kind · 1 flags · 4 checksum of the data · 8 start · 16 length · 20 data offset in the segment
//
// A write longer than a piece takes several descriptors; all but the first have the flag `continues`.
// Write number k of a batch (from 0) has seq first + k and time + k ns.
import { checksumOf } from './checksum.ts';
import { Format } from './format.ts';
import { getNs, getU64, wordsOf } from './words.ts';

export const DescriptorKind = { write: 1, zeroes: 2, trim: 3, mark: 4 } as const;
export const DescriptorFlag = { continues: 1 } as const;

/** What whoever writes a batch says of it. */
export interface BatchHeader {
  epoch: number;
  segment: number;
  /** Where the header lies in the segment. */
  offset: number;
  firstSeq: number;
  timeNs: bigint;
  durableSeq: number;
  writeCount: number;
  dataBytes: number;
  /** Of the header of the batch before. */
  previousCrc: number;
}

export interface Batch extends BatchHeader {
  descriptorCount: number;
  descriptorsCrc: number;
  headerCrc: number;
  /** Header, descriptors and data. */
  totalBytes: number;
}

export interface Descriptor {
  kind: number;
  continues: boolean;
  crc: number;
  start: number;
  length: number;
  dataOffset: number;
  /** Of the write it belongs to; for a mark, of the write before it. */
  seq: number;
}

/** The header at `at`, if one with a right checksum stands there; else null. Does not look at what follows. */
export function batchAt(bytes: Uint8Array, at: number): Batch | null {
  if (at + Format.batchHeaderBytes > bytes.length) return null;
  const words = wordsOf(bytes, at, Format.batchHeaderBytes);
  if (words[0] !== Format.batchMagic || words[1] !== Format.version) return null;
  const headerCrc = words[19]!;
  if (checksumOf(bytes, at, Format.batchHeaderBytes - 4) !== headerCrc) return null;
  const descriptorCount = words[12]!;
  const dataBytes = words[14]!;
  return {
    epoch: getU64(words, 2),
    segment: words[4]!,
    offset: words[5]!,
    firstSeq: getU64(words, 6),
    timeNs: getNs(words, 8),
    durableSeq: getU64(words, 10),
    descriptorCount,
    writeCount: words[13]!,
    dataBytes,
    descriptorsCrc: words[15]!,
    previousCrc: words[16]!,
    headerCrc,
    totalBytes: Format.batchHeaderBytes + descriptorCount * Format.descriptorBytes + dataBytes,
  };
}

/** Whether the descriptors after the header at `at` are whole and unchanged. */
export function descriptorsIntact(bytes: Uint8Array, at: number, batch: Batch): boolean {
  const length = batch.descriptorCount * Format.descriptorBytes;
  const from = at + Format.batchHeaderBytes;
  return from + length <= bytes.length && checksumOf(bytes, from, length) === batch.descriptorsCrc;
}

/** The descriptors of the batch whose header stands at `at`. The object yielded is reused: copy what you keep. */
export function* descriptorsOf(bytes: Uint8Array, at: number, batch: Batch): Generator<Descriptor> {
  const from = at + Format.batchHeaderBytes;
  const words = wordsOf(bytes, from, batch.descriptorCount * Format.descriptorBytes);
  const descriptor: Descriptor = {
    kind: 0,
    continues: false,
    crc: 0,
    start: 0,
    length: 0,
    dataOffset: 0,
    seq: 0,
  };
  let seq = batch.firstSeq - 1;
  for (let i = 0; i < batch.descriptorCount; i += 1) {
    const base = i * 6;
    const word = words[base]!;
    descriptor.kind = word & 255;
    descriptor.continues = ((word >>> 8) & DescriptorFlag.continues) !== 0;
    descriptor.crc = words[base + 1]!;
    descriptor.start = getU64(words, base + 2);
    descriptor.length = words[base + 4]!;
    descriptor.dataOffset = words[base + 5]!;
    if (descriptor.kind !== DescriptorKind.mark && !descriptor.continues) seq += 1;
    descriptor.seq = seq;
    yield descriptor;
  }
}

/** Batches packed without their data, as `extents.journaled` carries them: where each header stands. */
export function* packedBatches(bytes: Uint8Array): Generator<{ at: number; batch: Batch }> {
  let at = 0;
  while (at < bytes.length) {
    const batch = batchAt(bytes, at);
    if (batch === null || !descriptorsIntact(bytes, at, batch)) return;
    yield { at, batch };
    at += Format.batchHeaderBytes + batch.descriptorCount * Format.descriptorBytes;
  }
}
