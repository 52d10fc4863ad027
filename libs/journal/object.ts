// A backward object: what one sync saved of the MIM before it overwrote it. Header block, data of the extents
// in address order, footer with the list, trailer. Immutable. It names its snapshot and the sync's two points,
// so that the catalogue can be rebuilt from the files (I7).
import type { ExtentMap } from '@midmirror/extent-map';
import { checksum, checksumOf } from './checksum.ts';
import { packExtents, unpackExtents } from './extent-list.ts';
import { Format } from './format.ts';
import { decodeTrailer, encodeTrailer } from './segment.ts';
import { getNs, getText, getU64, setNs, setText, setU64, wordsOf } from './words.ts';

export interface ObjectHeader {
  volumeId: string;
  object: number;
  epoch: number;
  syncId: number;
  /** The snapshot this belongs to: number, point, time of the point, and time of the first
   *  write after it (0: not made yet). */
  snapshot: number;
  snapshotSeq: number;
  snapshotNs: bigint;
  snapshotUntilNs: bigint;
  fromSeq: number;
  toSeq: number;
  /** A sync may leave several objects: which of them this is, from 0. The last says so in its footer. */
  part: number;
  /** Why the snapshot is kept, and marks at its point: JSON, at most 2 KiB. */
  label: string;
}

export interface ObjectTrailer {
  footerOffset: number;
  footerBytes: number;
  footerCrc: number;
}

const LABEL_OFFSET = 256;
const LABEL_BYTES_MAX = 2048;

export function encodeObjectHeader(header: ObjectHeader): Uint8Array {
  const bytes = new Uint8Array(Format.objectHeaderBytes);
  const words = new Uint32Array(bytes.buffer);
  words[0] = Format.objectMagic;
  words[1] = Format.version;
  setText(bytes, 8, 64, header.volumeId);
  words[18] = header.object;
  words[19] = header.snapshot;
  setU64(words, 20, header.epoch);
  setU64(words, 22, header.syncId);
  setU64(words, 24, header.snapshotSeq);
  setNs(words, 26, header.snapshotNs);
  setNs(words, 28, header.snapshotUntilNs);
  setU64(words, 30, header.fromSeq);
  setU64(words, 32, header.toSeq);
  words[34] = header.part;
  setText(bytes, LABEL_OFFSET, LABEL_BYTES_MAX, header.label);
  words[1023] = checksumOf(bytes, 0, Format.objectHeaderBytes - 4);
  return bytes;
}

export function decodeObjectHeader(bytes: Uint8Array): ObjectHeader | null {
  if (bytes.length < Format.objectHeaderBytes) return null;
  const words = wordsOf(bytes, 0, Format.objectHeaderBytes);
  if (words[0] !== Format.objectMagic || words[1] !== Format.version) return null;
  if (checksumOf(bytes, 0, Format.objectHeaderBytes - 4) !== words[1023]) return null;
  return {
    volumeId: getText(bytes, 8, 64),
    object: words[18]!,
    snapshot: words[19]!,
    epoch: getU64(words, 20),
    syncId: getU64(words, 22),
    snapshotSeq: getU64(words, 24),
    snapshotNs: getNs(words, 26),
    snapshotUntilNs: getNs(words, 28),
    fromSeq: getU64(words, 30),
    toSeq: getU64(words, 32),
    part: words[34]!,
    label: getText(bytes, LABEL_OFFSET, LABEL_BYTES_MAX),
  };
}

export function encodeObjectFooter(extents: ExtentMap, lastPart: boolean): Uint8Array {
  const bytes = new Uint8Array(16 + extents.size * Format.extentBytes);
  const words = new Uint32Array(bytes.buffer);
  words[0] = Format.objectFooterMagic;
  words[1] = Format.version;
  words[2] = extents.size;
  words[3] = lastPart ? 1 : 0;
  packExtents(extents, words, 4);
  return bytes;
}

/** The extents of an object, or null when the bytes are not the footer of that checksum. */
export function decodeObjectFooter(
  bytes: Uint8Array,
  crc: number,
  object: number,
): { extents: ExtentMap; lastPart: boolean } | null {
  if (bytes.length < 16 || checksum(bytes) !== crc) return null;
  const words = wordsOf(bytes, 0, bytes.length);
  if (words[0] !== Format.objectFooterMagic || words[1] !== Format.version) return null;
  if (16 + words[2]! * Format.extentBytes !== bytes.length) return null;
  return { extents: unpackExtents(words, 4, words[2]!, object), lastPart: words[3] === 1 };
}

export const objectTrailer = {
  encode: (object: number, epoch: number, footerOffset: number, footer: Uint8Array): Uint8Array =>
    encodeTrailer(Format.objectTrailerMagic, object, epoch, footerOffset, footer),
  decode(bytes: Uint8Array, header: ObjectHeader): ObjectTrailer | null {
    const place = decodeTrailer(Format.objectTrailerMagic, bytes);
    return place !== null && place.source === header.object && place.epoch === header.epoch ? place : null;
  },
};
