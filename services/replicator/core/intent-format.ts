// The write-intent map as bytes: a head page, then pages of bits, one bit per region, each page with a checksum. A
// page that is torn means that all of its regions are behind. Little-endian.
//
//   head page (4096)  magic "MIMINTNT" · version u32 · length of the JSON u32 · CRC-32 of the JSON u32 · JSON
//   bit page  (4096)  CRC-32 of the rest u32 · number of the page u32 · 4088 bytes of bits, region 0 in the lowest
import { crc32 } from 'node:zlib';
import { MidmirrorError } from '@midmirror/basis';

export const PAGE_BYTES = 4096;
const PAGE_HEAD_BYTES = 8;
const PAGE_BIT_BYTES = PAGE_BYTES - PAGE_HEAD_BYTES;
export const PAGE_REGIONS = PAGE_BIT_BYTES * 8;
const MAGIC = 'MIMINTNT';
const VERSION = 1;
const JSON_AT = 20;

/** What the map is of. */
export interface IntentHead {
  volumeBytes: number;
  regionBytes: number;
  /** The primary: its path, and what tells it from another one at that path ('' where nothing does). */
  primary: { path: string; identity: string };
  /** The appliance's volume: where it is, and its id there ('' until it has been met). */
  target: { uri: string; volumeId: string };
  /** Primary and appliance have been equal once: the initial sync is done. */
  synced: boolean;
  /** After an orderly stop: when the primary's file was last written; '' while a replicator runs, and for devices. */
  restingNs: string;
  /** After an orderly stop in step: the volume's last write, whose point the primary holds. Null, or absent: not known. */
  restingSeq?: number | null;
}

export function pagesOf(regionCount: number): number {
  return Math.ceil(regionCount / PAGE_REGIONS);
}

export function encodeHead(head: IntentHead): Uint8Array {
  const json = Buffer.from(JSON.stringify(head));
  if (json.length > PAGE_BYTES - JSON_AT)
    throw new MidmirrorError('bad-request', 'the names of primary and target are too long for a map', {
      hint: 'use shorter paths',
    });
  const page = Buffer.alloc(PAGE_BYTES);
  page.write(MAGIC, 0, 'latin1');
  page.writeUInt32LE(VERSION, 8);
  page.writeUInt32LE(json.length, 12);
  page.writeUInt32LE(crc32(json), 16);
  json.copy(page, JSON_AT);
  return page;
}

/** `path` is for the error. */
export function decodeHead(bytes: Uint8Array, path: string): IntentHead {
  const page = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, PAGE_BYTES));
  if (page.length < PAGE_BYTES || page.toString('latin1', 0, 8) !== MAGIC)
    throw unusable(`${path} is not a write-intent map`);
  const version = page.readUInt32LE(8);
  if (version !== VERSION)
    throw unusable(`${path} is a write-intent map of version ${version}; this replicator reads ${VERSION}`);
  const length = page.readUInt32LE(12);
  const json = page.subarray(JSON_AT, JSON_AT + Math.min(length, PAGE_BYTES));
  if (length > PAGE_BYTES - JSON_AT || crc32(json) !== page.readUInt32LE(16))
    throw unusable(`${path}: the head of the write-intent map is damaged`);
  return JSON.parse(json.toString()) as IntentHead;
}

/** Page `number` of the bits; `bits` are those of all regions. */
export function encodePage(bits: Uint8Array, number: number): Uint8Array {
  const page = Buffer.alloc(PAGE_BYTES);
  page.set(bits.subarray(number * PAGE_BIT_BYTES, (number + 1) * PAGE_BIT_BYTES), PAGE_HEAD_BYTES);
  page.writeUInt32LE(number, 4);
  page.writeUInt32LE(crc32(page.subarray(4)), 0);
  return page;
}

/** The bits of all regions, and which pages were damaged: there every region counts as behind. */
export function decodePages(bytes: Uint8Array, regionCount: number): { bits: Uint8Array; damaged: number[] } {
  const pages = pagesOf(regionCount);
  const bits = new Uint8Array(pages * PAGE_BIT_BYTES);
  const damaged: number[] = [];
  for (let number = 0; number < pages; number += 1) {
    const page = bytes.subarray(PAGE_BYTES * (number + 1), PAGE_BYTES * (number + 2));
    const view = Buffer.from(page.buffer, page.byteOffset, page.length);
    const whole =
      page.length === PAGE_BYTES &&
      view.readUInt32LE(4) === number &&
      view.readUInt32LE(0) === crc32(view.subarray(4));
    if (whole) bits.set(page.subarray(PAGE_HEAD_BYTES), number * PAGE_BIT_BYTES);
    else {
      bits.fill(0xff, number * PAGE_BIT_BYTES, (number + 1) * PAGE_BIT_BYTES);
      damaged.push(number);
    }
  }
  return { bits, damaged };
}

function unusable(message: string): MidmirrorError {
  return new MidmirrorError('corrupt', message, {
    hint: 'start with --resync full: a new map is made, and the whole primary is compared with the appliance',
  });
}
