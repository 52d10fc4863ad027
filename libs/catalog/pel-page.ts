// Physical extent list pages: a few hundred extents packed in one blob, 24 bytes each: start (8), length with
// flags in its low nine bits (4), source (4), offset (4), checksum (4). Never one row per extent.
import type { ExtentMap } from '@midmirror/extent-map';

const EXTENTS_PER_PAGE = 512;
const WORDS = 6;
const WORD = 4294967296;

export function packPages(map: ExtentMap): { startBytes: number; page: Uint8Array }[] {
  const pages: { startBytes: number; page: Uint8Array }[] = [];
  let words = new Uint32Array(EXTENTS_PER_PAGE * WORDS);
  let count = 0;
  let startBytes = 0;
  const close = (): void => {
    if (count > 0) pages.push({ startBytes, page: new Uint8Array(words.buffer, 0, count * WORDS * 4) });
    words = new Uint32Array(EXTENTS_PER_PAGE * WORDS);
    count = 0;
  };
  for (const c = map.cursor(); c.valid; c.next()) {
    if (count === 0) startBytes = c.start;
    const base = count * WORDS;
    words[base] = c.start % WORD;
    words[base + 1] = Math.floor(c.start / WORD);
    words[base + 2] = c.length + c.flags;
    words[base + 3] = c.source;
    words[base + 4] = c.offset;
    words[base + 5] = c.crc;
    count += 1;
    if (count === EXTENTS_PER_PAGE) close();
  }
  close();
  return pages;
}

/** Adds the page's extents: over what is there, or under it. */
export function unpackPage(page: Uint8Array, into: ExtentMap, under: boolean): void {
  const words = new Uint32Array(page.slice().buffer);
  for (let base = 0; base + WORDS <= words.length; base += WORDS) {
    const start = words[base]! + words[base + 1]! * WORD;
    const flags = words[base + 2]! & 511;
    const length = words[base + 2]! - flags;
    if (under) into.putUnder(start, length, flags, words[base + 3]!, words[base + 4]!, words[base + 5]!);
    else into.put(start, length, flags, words[base + 3]!, words[base + 4]!, words[base + 5]!);
  }
}
