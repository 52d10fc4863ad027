// Physical extent list pages: a few hundred extents of a run packed in one blob, never one row per extent. A page
// answers for the addresses from its own start up to the next page's; the first answers from 0 on. So a page that is
// missing shows, and so does a damaged one: it has a checksum.
//
// Layout, little-endian words: magic "PEL2", CRC-32 of all that follows, count, end of its addresses (two words; all
// ones: the end of the volume). Then per extent, as variable-length integers: the gap before it and its length in
// units of 512 with its flags in the low four bits; source, as the difference to the one before; unless it is zero,
// its offset (halved again by 8 where that divides it); and, as a word, its checksum where the extent is whole.
import { crc32 } from 'node:zlib';
import { assert } from '@midmirror/basis';
import { ExtentFlag, type ExtentMap } from '@midmirror/extent-map';

const MAGIC = 0x324c4550;
const EXTENTS_PER_PAGE = 512;
const HEADER_BYTES = 20;
/** Gap 8, length 6, source 6, offset 6, checksum 4. */
const EXTENT_BYTES_MAX = 30;
const UNIT = 512;
const FLAGS = 16;
const WORD = 4294967296;
/** Words of an extent in an unpacked page, as in an ExtentMap: length with flags, source, offset, checksum. */
export const PAGE_WORDS = 4;

export interface PackedPage {
  startBytes: number;
  page: Uint8Array;
}

/** A page in memory. It answers for `[startBytes, endBytes)`; extents are ascending, in bytes. */
export interface PelPage {
  startBytes: number;
  /** Infinity: to the end of the volume. */
  endBytes: number;
  count: number;
  starts: Float64Array;
  words: Uint32Array;
}

/** Packs extents that come in ascending order; `take` what is whole, `end` what is left. */
export class PageBuilder {
  #bytes = new Uint8Array(HEADER_BYTES + EXTENTS_PER_PAGE * EXTENT_BYTES_MAX);
  #at = HEADER_BYTES;
  #count = 0;
  #startBytes = 0;
  #previousEnd = 0;
  #previousSource = 0;
  #ready: PackedPage[] = [];

  add(start: number, length: number, flags: number, source: number, offset: number, crc: number): void {
    assert(start >= this.#previousEnd && flags < FLAGS, 'extents come in ascending order');
    if (this.#count === EXTENTS_PER_PAGE) this.#close(start);
    this.#number((start - this.#previousEnd) / UNIT);
    this.#number((length / UNIT) * FLAGS + flags);
    this.#number(folded(source - this.#previousSource));
    if ((flags & ExtentFlag.zero) === 0) this.#number(offset % 8 === 0 ? offset / 4 : offset * 2 + 1);
    if (flags & ExtentFlag.whole) this.#word(crc);
    this.#previousEnd = start + length;
    this.#previousSource = source;
    this.#count += 1;
  }

  /** Pages that `take` would give. */
  get readyCount(): number {
    return this.#ready.length;
  }

  take(): PackedPage[] {
    const ready = this.#ready;
    this.#ready = [];
    return ready;
  }

  end(): PackedPage[] {
    if (this.#count > 0) this.#close(null);
    return this.take();
  }

  #close(next: number | null): void {
    const page = this.#bytes.slice(0, this.#at);
    const view = new DataView(page.buffer);
    view.setUint32(0, MAGIC, true);
    view.setUint32(8, this.#count, true);
    view.setUint32(12, next === null ? WORD - 1 : next % WORD, true);
    view.setUint32(16, next === null ? WORD - 1 : Math.floor(next / WORD), true);
    view.setUint32(4, crc32(page.subarray(8)), true);
    this.#ready.push({ startBytes: this.#startBytes, page });
    this.#at = HEADER_BYTES;
    this.#count = 0;
    this.#startBytes = next ?? 0;
    this.#previousEnd = next ?? 0;
    this.#previousSource = 0;
  }

  #number(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#at] = (rest % 128) + 128;
      this.#at += 1;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#at] = rest;
    this.#at += 1;
  }

  #word(value: number): void {
    for (let shift = 0; shift < 32; shift += 8) {
      this.#bytes[this.#at] = value >>> shift;
      this.#at += 1;
    }
  }
}

export function packPages(map: ExtentMap): PackedPage[] {
  const builder = new PageBuilder();
  for (const c = map.cursor(); c.valid; c.next())
    builder.add(c.start, c.length, c.flags, c.source, c.offset, c.crc);
  return builder.end();
}

/** Null: damaged, or no page. */
export function unpackPage(startBytes: number, page: Uint8Array): PelPage | null {
  if (page.length < HEADER_BYTES) return null;
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const count = view.getUint32(8, true);
  if (view.getUint32(0, true) !== MAGIC || count > EXTENTS_PER_PAGE) return null;
  if (crc32(page.subarray(8)) !== view.getUint32(4, true)) return null;
  const low = view.getUint32(12, true);
  const high = view.getUint32(16, true);
  const endBytes = low === WORD - 1 && high === WORD - 1 ? Number.POSITIVE_INFINITY : high * WORD + low;
  const starts = new Float64Array(count);
  const words = new Uint32Array(count * PAGE_WORDS);
  const reader = new NumberReader(page, HEADER_BYTES);
  let previousEnd = startBytes;
  let source = 0;
  for (let i = 0; i < count; i += 1) {
    const start = previousEnd + reader.number() * UNIT;
    const sized = reader.number();
    const flags = sized % FLAGS;
    const length = ((sized - flags) / FLAGS) * UNIT;
    source += unfolded(reader.number());
    const base = i * PAGE_WORDS;
    starts[i] = start;
    words[base] = length + flags;
    words[base + 1] = source;
    if ((flags & ExtentFlag.zero) === 0) {
      const offset = reader.number();
      words[base + 2] = offset % 2 === 0 ? offset * 4 : (offset - 1) / 2;
    }
    if (flags & ExtentFlag.whole) words[base + 3] = reader.word();
    previousEnd = start + length;
  }
  return { startBytes, endBytes, count, starts, words };
}

/** Adds a page's extents: over what is there, or under it. */
export function putPage(page: PelPage, into: ExtentMap, under: boolean): void {
  for (let i = 0; i < page.count; i += 1) putExtent(page, i, into, under);
}

export function putExtent(page: PelPage, index: number, into: ExtentMap, under: boolean): void {
  const base = index * PAGE_WORDS;
  const { words } = page;
  const flags = words[base]! & (UNIT - 1);
  const length = words[base]! - flags;
  const start = page.starts[index]!;
  if (under) into.putUnder(start, length, flags, words[base + 1]!, words[base + 2]!, words[base + 3]!);
  else into.put(start, length, flags, words[base + 1]!, words[base + 2]!, words[base + 3]!);
}

/** Where an extent of a page ends, exclusive. */
export function endOfExtent(page: PelPage, index: number): number {
  const packed = page.words[index * PAGE_WORDS]!;
  return page.starts[index]! + (packed - (packed & (UNIT - 1)));
}

/** Index of the first extent of a page that ends after an address; `count`: none does. */
export function firstEndingAfter(page: PelPage, address: number): number {
  let low = 0;
  let high = page.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (endOfExtent(page, middle) <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

class NumberReader {
  readonly #bytes: Uint8Array;
  #at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  number(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.#at++]!;
    if (byte < 128) return byte;
    let value = byte - 128;
    let scale = 128;
    do {
      byte = bytes[this.#at++]!;
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte >= 128);
    return value;
  }

  word(): number {
    const at = this.#at;
    const bytes = this.#bytes;
    this.#at += 4;
    return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
  }
}

/** Small differences of either sign as small numbers: 0, -1, 1, -2, … become 0, 1, 2, 3, … */
function folded(difference: number): number {
  return difference >= 0 ? difference * 2 : -difference * 2 - 1;
}

function unfolded(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}
