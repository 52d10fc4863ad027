// A segment file: header block, batches, and once sealed a footer (net extents, batch index) whose place a
// trailer in the file's last bytes names. The footer is the level-0 run: nobody need read data to learn the map.
import type { ExtentMap } from '@midmirror/extent-map';
import { checksum, checksumOf } from './checksum.ts';
import { packExtents, unpackExtents } from './extent-list.ts';
import { Format } from './format.ts';
import { getNs, getText, getU64, setNs, setText, setU64, wordsOf } from './words.ts';

export interface SegmentHeader {
  volumeId: string;
  epoch: number;
  segment: number;
  segmentBytes: number;
}

/** One line of the batch index. */
export interface SegmentBatch {
  offset: number;
  firstSeq: number;
  timeNs: bigint;
  writeCount: number;
}

export interface SegmentFooter {
  segment: number;
  epoch: number;
  firstSeq: number;
  /** `firstSeq - 1` when the segment holds marks only. */
  lastSeq: number;
  firstNs: bigint;
  lastNs: bigint;
  /** Where the next batch would have begun. */
  endOffset: number;
  /** Checksum of the last batch's header: the chain goes on from here. */
  lastHeaderCrc: number;
  readonly extents: ExtentMap;
  batches: SegmentBatch[];
}

const FOOTER_FIXED_BYTES = 80;

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const bytes = new Uint8Array(Format.segmentHeaderBytes);
  const words = new Uint32Array(bytes.buffer);
  words[0] = Format.segmentMagic;
  words[1] = Format.version;
  setText(bytes, 8, 64, header.volumeId);
  setU64(words, 18, header.epoch);
  words[20] = header.segment;
  words[21] = header.segmentBytes;
  words[22] = checksumOf(bytes, 0, 88);
  return bytes;
}

/** Null: not a segment header, or a damaged one. */
export function decodeSegmentHeader(bytes: Uint8Array): SegmentHeader | null {
  if (bytes.length < 92) return null;
  const words = wordsOf(bytes, 0, 92);
  if (words[0] !== Format.segmentMagic || words[1] !== Format.version) return null;
  if (checksumOf(bytes, 0, 88) !== words[22]) return null;
  return {
    volumeId: getText(bytes, 8, 64),
    epoch: getU64(words, 18),
    segment: words[20]!,
    segmentBytes: words[21]!,
  };
}

/** Room to keep free at the end of a segment for the footer of so many descriptors and batches. */
export function segmentFooterBytesMax(descriptors: number, batches: number): number {
  // Each put can leave at most two more extents than were there.
  return (
    FOOTER_FIXED_BYTES +
    descriptors * 2 * Format.extentBytes +
    batches * Format.batchIndexBytes +
    Format.trailerBytes
  );
}

/** The footer's bytes, without the trailer; `footerOffset` is the footer's `endOffset`, rounded up to a word. */
export function encodeSegmentFooter(footer: SegmentFooter): Uint8Array {
  const extents = footer.extents;
  const bytes = new Uint8Array(
    FOOTER_FIXED_BYTES + extents.size * Format.extentBytes + footer.batches.length * Format.batchIndexBytes,
  );
  const words = new Uint32Array(bytes.buffer);
  words[0] = Format.segmentFooterMagic;
  words[1] = Format.version;
  words[2] = footer.segment;
  words[3] = extents.size;
  setU64(words, 4, footer.epoch);
  setU64(words, 6, footer.firstSeq);
  setU64(words, 8, footer.lastSeq);
  setNs(words, 10, footer.firstNs);
  setNs(words, 12, footer.lastNs);
  words[14] = footer.batches.length;
  words[15] = footer.lastHeaderCrc;
  words[16] = footer.endOffset;
  let base = packExtents(extents, words, FOOTER_FIXED_BYTES / 4);
  for (const batch of footer.batches) {
    words[base] = batch.offset;
    words[base + 1] = batch.writeCount;
    setU64(words, base + 2, batch.firstSeq);
    setNs(words, base + 4, batch.timeNs);
    base += Format.batchIndexBytes / 4;
  }
  return bytes;
}

/** The trailer for the last bytes of the segment file. */
export function segmentTrailer(
  segment: number,
  epoch: number,
  footerOffset: number,
  footer: Uint8Array,
): Uint8Array {
  return encodeTrailer(Format.segmentTrailerMagic, segment, epoch, footerOffset, footer);
}

/** Where the footer lies, from the trailer of a sealed segment; null when it is not sealed. */
export function decodeSegmentTrailer(
  trailer: Uint8Array,
  header: SegmentHeader,
): { footerOffset: number; footerBytes: number; footerCrc: number } | null {
  const place = decodeTrailer(Format.segmentTrailerMagic, trailer);
  if (place === null || place.source !== header.segment || place.epoch !== header.epoch) return null;
  if (place.footerOffset + place.footerBytes > header.segmentBytes) return null;
  return place;
}

/** Null when the bytes are not the footer of that checksum. */
export function decodeSegmentFooter(bytes: Uint8Array, crc: number): SegmentFooter | null {
  if (bytes.length < FOOTER_FIXED_BYTES || checksum(bytes) !== crc) return null;
  const words = wordsOf(bytes, 0, bytes.length);
  if (words[0] !== Format.segmentFooterMagic || words[1] !== Format.version) return null;
  const segment = words[2]!;
  const extentCount = words[3]!;
  const batches: SegmentBatch[] = [];
  let base = FOOTER_FIXED_BYTES / 4 + extentCount * (Format.extentBytes / 4);
  for (let i = 0; i < words[14]!; i += 1) {
    batches.push({
      offset: words[base]!,
      writeCount: words[base + 1]!,
      firstSeq: getU64(words, base + 2),
      timeNs: getNs(words, base + 4),
    });
    base += Format.batchIndexBytes / 4;
  }
  let extents: ExtentMap | null = null;
  return {
    segment,
    epoch: getU64(words, 4),
    firstSeq: getU64(words, 6),
    lastSeq: getU64(words, 8),
    firstNs: getNs(words, 10),
    lastNs: getNs(words, 12),
    endOffset: words[16]!,
    lastHeaderCrc: words[15]!,
    // Most who read a footer want its batches.
    get extents() {
      extents ??= unpackExtents(words, FOOTER_FIXED_BYTES / 4, extentCount, segment);
      return extents;
    },
    batches,
  };
}

/** Magic, source, epoch, footer offset, length and checksum, checksum of the trailer: in 32 bytes. */
export function encodeTrailer(
  magic: number,
  source: number,
  epoch: number,
  footerOffset: number,
  footer: Uint8Array,
): Uint8Array {
  const words = new Uint32Array(Format.trailerBytes / 4);
  const bytes = new Uint8Array(words.buffer);
  words[0] = magic;
  words[1] = source;
  setU64(words, 2, epoch);
  words[4] = footerOffset;
  words[5] = footer.length;
  words[6] = checksum(footer);
  words[7] = checksumOf(bytes, 0, 28);
  return bytes;
}

export function decodeTrailer(
  magic: number,
  bytes: Uint8Array,
): { source: number; epoch: number; footerOffset: number; footerBytes: number; footerCrc: number } | null {
  if (bytes.length !== Format.trailerBytes) return null;
  const words = wordsOf(bytes, 0, Format.trailerBytes);
  if (words[0] !== magic || checksumOf(bytes, 0, 28) !== words[7]) return null;
  return {
    source: words[1]!,
    epoch: getU64(words, 2),
    footerOffset: words[4]!,
    footerBytes: words[5]!,
    footerCrc: words[6]!,
  };
}
