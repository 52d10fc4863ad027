// Packed extents in footers: start (8), length with flags in its low nine bits (4), offset (4), checksum (4).
// For a segment `offset` counts bytes from the segment's start, for an object from the object's start.
import { ExtentMap } from '@midmirror/extent-map';
import { Format } from './format.ts';
import { getU64, setU64 } from './words.ts';

const WORDS = Format.extentBytes / 4;

export function packExtents(map: ExtentMap, words: Uint32Array, from: number): number {
  let base = from;
  for (const cursor = map.cursor(); cursor.valid; cursor.next()) {
    setU64(words, base, cursor.start);
    words[base + 2] = cursor.length + cursor.flags;
    words[base + 3] = cursor.offset;
    words[base + 4] = cursor.crc;
    base += WORDS;
  }
  return base;
}

export function unpackExtents(words: Uint32Array, from: number, count: number, source: number): ExtentMap {
  const map = new ExtentMap();
  for (let i = 0; i < count; i += 1) {
    const base = from + i * WORDS;
    const packed = words[base + 2]!;
    const flags = packed & 511;
    map.put(getU64(words, base), packed - flags, flags, source, words[base + 3]!, words[base + 4]!);
  }
  return map;
}
