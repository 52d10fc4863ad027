// A map from address ranges to where their bytes lie: ordered, non-overlapping extents, newest put wins.
// Made for millions of small extents: leaves of typed arrays under one sorted array of first addresses, no
// object per extent. Ranges are half-open and in bytes. The naive twin stands in test/naive-extent-map.ts.
import { assert } from '@midmirror/basis';

/** Flags of an extent; they live in the low nine bits of its length, which is a multiple of 512. */
export const ExtentFlag = {
  /** Reads as zeroes; has no data anywhere. */
  zero: 1,
  /** `crc` is the checksum of exactly this extent's data, so a reader can verify it without looking further. */
  whole: 2,
  /** `source` is a backward object; otherwise a forward segment. */
  backward: 4,
  /** A zero extent that a trim made. */
  trim: 8,
} as const;

const FLAG_MASK = 511;
const LEAF_CAPACITY = 128;
const WORDS = 4; // length|flags, source, offset, crc

const SLAB_LEAVES_MAX = 64;
/** The leaves' memory is given back when it is so many times what is in use. */
const SLACK = 4;

class Leaf {
  count = 0;
  readonly starts: Float64Array;
  readonly words: Uint32Array;

  constructor(starts: Float64Array, words: Uint32Array) {
    this.starts = starts;
    this.words = words;
  }
}

/** Leaves come in slabs that grow with the map: thousands of small allocations would shred the process's heap. */
class LeafStore {
  #free: Leaf[] = [];
  #made = 0;

  get made(): number {
    return this.#made;
  }

  take(): Leaf {
    if (this.#free.length === 0) this.#makeSlab();
    const leaf = this.#free.pop()!;
    leaf.count = 0;
    return leaf;
  }

  give(leaf: Leaf): void {
    this.#free.push(leaf);
  }

  #makeSlab(): void {
    const count = Math.min(SLAB_LEAVES_MAX, Math.max(1, this.#made));
    this.#made += count;
    const starts = new Float64Array(count * LEAF_CAPACITY);
    const words = new Uint32Array(count * LEAF_CAPACITY * WORDS);
    for (let i = count - 1; i >= 0; i -= 1) {
      const from = i * LEAF_CAPACITY;
      this.#free.push(
        new Leaf(
          starts.subarray(from, from + LEAF_CAPACITY),
          words.subarray(from * WORDS, (from + LEAF_CAPACITY) * WORDS),
        ),
      );
    }
  }
}

export class ExtentMap {
  #store = new LeafStore();
  #leaves: Leaf[] = [this.#store.take()];
  #firsts = new Float64Array(16);
  #size = 0;

  /** Number of extents. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of the addresses that it maps. Linear in the extents. */
  get coveredBytes(): number {
    let bytes = 0;
    for (const c = this.cursor(); c.valid; c.next()) bytes += c.length;
    return bytes;
  }

  /** Bytes of memory that the extents take. */
  get memoryBytes(): number {
    return this.#leaves.length * (LEAF_CAPACITY * (8 + 4 * WORDS) + 400) + this.#firsts.byteLength;
  }

  /** Puts an extent over whatever was there. `offset` is in bytes within `source`. */
  put(start: number, length: number, flags: number, source: number, offset: number, crc: number): void {
    assert(length > 0 && (length & FLAG_MASK) === 0, 'length is a positive multiple of 512');
    const leafIndex = this.#leafOf(start);
    const leaf = this.#leaves[leafIndex]!;
    const at = lowerBound(leaf.starts, leaf.count, start);
    // The most common put of a busy disk: the very same range again.
    if (
      at < leaf.count &&
      leaf.starts[at] === start &&
      (leaf.words[at * WORDS]! & ~FLAG_MASK) >>> 0 === length
    ) {
      setWords(leaf.words, at * WORDS, length + flags, source, offset, crc);
      return;
    }
    this.erase(start, length);
    this.#insert(start, length + flags, source, offset, crc);
  }

  /** Puts an extent only where nothing was yet. */
  putUnder(start: number, length: number, flags: number, source: number, offset: number, crc: number): void {
    const end = start + length;
    let at = start;
    const gaps: number[] = [];
    for (const cursor = this.cursor(start); cursor.valid && cursor.start < end; cursor.next()) {
      if (cursor.start > at) gaps.push(at, cursor.start);
      at = Math.max(at, cursor.end);
    }
    if (at < end) gaps.push(at, end);
    for (let i = 0; i < gaps.length; i += 2) {
      const from = gaps[i]!;
      const size = gaps[i + 1]! - from;
      const pieceFlags = size === length ? flags : flags & ~ExtentFlag.whole;
      const pieceOffset = flags & ExtentFlag.zero ? offset : offset + (from - start);
      this.#insert(from, size + pieceFlags, source, pieceOffset, crc);
    }
  }

  /** Removes everything in `[start, start + length)`; extents that reach over an edge are cut. */
  erase(start: number, length: number): void {
    const end = start + length;
    let leafIndex = this.#leafOf(start);
    let at = this.#firstEndingAfter(leafIndex, start);
    for (;;) {
      const leaf = this.#leaves[leafIndex];
      if (leaf === undefined) return;
      if (at >= leaf.count) {
        leafIndex += 1;
        at = 0;
        continue;
      }
      const entryStart = leaf.starts[at]!;
      if (entryStart >= end) return;
      const packed = leaf.words[at * WORDS]!;
      const entryLength = (packed & ~FLAG_MASK) >>> 0;
      const entryEnd = entryStart + entryLength;
      const flags = packed & FLAG_MASK & ~ExtentFlag.whole;
      if (entryStart < start) {
        leaf.words[at * WORDS] = start - entryStart + flags;
        if (entryEnd > end) {
          const skipped = flags & ExtentFlag.zero ? 0 : end - entryStart;
          const base = at * WORDS;
          this.#insert(
            end,
            entryEnd - end + flags,
            leaf.words[base + 1]!,
            leaf.words[base + 2]! + skipped,
            leaf.words[base + 3]!,
          );
          return;
        }
        at += 1;
      } else if (entryEnd > end) {
        leaf.starts[at] = end;
        leaf.words[at * WORDS] = entryEnd - end + flags;
        if ((flags & ExtentFlag.zero) === 0) leaf.words[at * WORDS + 2]! += end - entryStart;
        if (at === 0) this.#firsts[leafIndex] = end;
        return;
      } else {
        at = this.#removeRun(leafIndex, at, end);
        if (at < 0) at = 0; // the leaf is gone: the next one has taken its index
      }
    }
  }

  /**
   * Removes the extents that `condition` names, in place. Linear in the size; small neighbours are joined. Memory is
   * given back when little of it is in use any more.
   */
  removeWhere(condition: (flags: number, source: number, offset: number) => boolean): void {
    const kept: Leaf[] = [];
    this.#size = 0;
    for (const leaf of this.#leaves) {
      keepInLeaf(leaf, condition);
      this.#size += leaf.count;
      const before = kept.at(-1);
      if (leaf.count > 0 && (before === undefined || before.count + leaf.count > LEAF_CAPACITY / 2)) {
        kept.push(leaf);
        continue;
      }
      if (leaf.count > 0) joinLeaf(before!, leaf);
      this.#store.give(leaf);
    }
    if (kept.length === 0) kept.push(this.#store.take());
    const wasteful = this.#store.made > SLAB_LEAVES_MAX && kept.length * SLACK < this.#store.made;
    this.#leaves = wasteful ? this.#moved(kept) : kept;
    this.#leaves.forEach((leaf, i) => {
      this.#firsts[i] = leaf.starts[0]!;
    });
  }

  /** Copies of leaves in slabs of their own: those that they were in are let go. */
  #moved(leaves: readonly Leaf[]): Leaf[] {
    this.#store = new LeafStore();
    return leaves.map((leaf) => {
      const copy = this.#store.take();
      copy.count = leaf.count;
      copy.starts.set(leaf.starts.subarray(0, leaf.count));
      copy.words.set(leaf.words.subarray(0, leaf.count * WORDS));
      return copy;
    });
  }

  clear(): void {
    this.#store = new LeafStore();
    this.#leaves = [this.#store.take()];
    this.#size = 0;
  }

  /** A cursor on the first extent that ends after `start`. Invalid after the next change of the map. */
  cursor(start = 0): ExtentCursor {
    return new ExtentCursor(this).seek(start);
  }

  /** For ExtentCursor only: leaf and index of the first extent that ends after `start`. */
  locate(start: number, cursor: ExtentCursor): void {
    const leafIndex = this.#leafOf(start);
    cursor.place(leafIndex, this.#firstEndingAfter(leafIndex, start));
  }

  /** For ExtentCursor only. */
  leafAt(index: number): Readonly<{ count: number; starts: Float64Array; words: Uint32Array }> | undefined {
    return this.#leaves[index];
  }

  /** Index of the last leaf whose first address is at or below `start`; 0 when there is none. */
  #leafOf(start: number): number {
    let low = 0;
    let high = this.#leaves.length;
    const firsts = this.#firsts;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (firsts[middle]! <= start) low = middle;
      else high = middle;
    }
    return low;
  }

  #firstEndingAfter(leafIndex: number, start: number): number {
    const leaf = this.#leaves[leafIndex]!;
    const at = lowerBound(leaf.starts, leaf.count, start);
    if (at > 0) {
      const before = leaf.starts[at - 1]! + ((leaf.words[(at - 1) * WORDS]! & ~FLAG_MASK) >>> 0);
      if (before > start) return at - 1;
    }
    return at;
  }

  /** Removes the extents from `at` on that end by `end`, in one leaf. The index to go on at; -1: leaf removed. */
  #removeRun(leafIndex: number, at: number, end: number): number {
    const leaf = this.#leaves[leafIndex]!;
    let to = at + 1;
    while (to < leaf.count && leaf.starts[to]! + ((leaf.words[to * WORDS]! & ~FLAG_MASK) >>> 0) <= end)
      to += 1;
    leaf.starts.copyWithin(at, to, leaf.count);
    leaf.words.copyWithin(at * WORDS, to * WORDS, leaf.count * WORDS);
    leaf.count -= to - at;
    this.#size -= to - at;
    if (leaf.count === 0 && this.#leaves.length > 1) {
      this.#firsts.copyWithin(leafIndex, leafIndex + 1, this.#leaves.length);
      this.#leaves.splice(leafIndex, 1);
      this.#store.give(leaf);
      return -1;
    }
    if (at === 0 && leaf.count > 0) this.#firsts[leafIndex] = leaf.starts[0]!;
    return at;
  }

  #insert(start: number, packed: number, source: number, offset: number, crc: number): void {
    let leafIndex = this.#leafOf(start);
    let leaf = this.#leaves[leafIndex]!;
    if (leaf.count === LEAF_CAPACITY) {
      this.#split(leafIndex, start);
      leafIndex = this.#leafOf(start);
      leaf = this.#leaves[leafIndex]!;
    }
    const at = lowerBound(leaf.starts, leaf.count, start);
    if (at < leaf.count) {
      leaf.starts.copyWithin(at + 1, at, leaf.count);
      leaf.words.copyWithin((at + 1) * WORDS, at * WORDS, leaf.count * WORDS);
    }
    leaf.starts[at] = start;
    setWords(leaf.words, at * WORDS, packed, source, offset, crc);
    leaf.count += 1;
    if (at === 0) this.#firsts[leafIndex] = start;
    this.#size += 1;
  }

  /** Splits a full leaf in two; at the end of the map the left one stays full, for ascending puts. */
  #split(leafIndex: number, start: number): void {
    const left = this.#leaves[leafIndex]!;
    const right = this.#store.take();
    const ascending = leafIndex === this.#leaves.length - 1 && start > left.starts[LEAF_CAPACITY - 1]!;
    const keep = ascending ? LEAF_CAPACITY - 1 : LEAF_CAPACITY / 2;
    right.count = left.count - keep;
    right.starts.set(left.starts.subarray(keep, left.count));
    right.words.set(left.words.subarray(keep * WORDS, left.count * WORDS));
    left.count = keep;
    this.#addLeaf(leafIndex + 1, right, right.starts[0]!);
  }

  #addLeaf(index: number, leaf: Leaf, first: number): void {
    if (this.#leaves.length === this.#firsts.length) {
      const grown = new Float64Array(this.#firsts.length * 2);
      grown.set(this.#firsts);
      this.#firsts = grown;
    }
    this.#firsts.copyWithin(index + 1, index, this.#leaves.length);
    this.#firsts[index] = first;
    this.#leaves.splice(index, 0, leaf);
  }
}

/** Walks the extents in ascending order. Reuse one on a hot path: `seek` makes no garbage. */
export class ExtentCursor {
  readonly #map: ExtentMap;
  #leafIndex = 0;
  #at = 0;
  #leaf: ReturnType<ExtentMap['leafAt']>;

  constructor(map: ExtentMap) {
    this.#map = map;
  }

  seek(start: number): this {
    this.#map.locate(start, this);
    return this;
  }

  /** For ExtentMap only. */
  place(leafIndex: number, at: number): void {
    this.#leafIndex = leafIndex;
    this.#at = at;
    this.#leaf = this.#map.leafAt(leafIndex);
    this.#skipEnds();
  }

  next(): void {
    this.#at += 1;
    this.#skipEnds();
  }

  get valid(): boolean {
    return this.#leaf !== undefined;
  }
  get start(): number {
    return this.#leaf!.starts[this.#at]!;
  }
  get length(): number {
    return (this.#leaf!.words[this.#at * WORDS]! & ~FLAG_MASK) >>> 0;
  }
  get end(): number {
    return this.start + this.length;
  }
  get flags(): number {
    return this.#leaf!.words[this.#at * WORDS]! & FLAG_MASK;
  }
  get source(): number {
    return this.#leaf!.words[this.#at * WORDS + 1]!;
  }
  get offset(): number {
    return this.#leaf!.words[this.#at * WORDS + 2]!;
  }
  get crc(): number {
    return this.#leaf!.words[this.#at * WORDS + 3]!;
  }

  #skipEnds(): void {
    while (this.#leaf !== undefined && this.#at >= this.#leaf.count) {
      this.#leafIndex += 1;
      this.#at = 0;
      this.#leaf = this.#map.leafAt(this.#leafIndex);
    }
  }
}

function keepInLeaf(leaf: Leaf, condition: (flags: number, source: number, offset: number) => boolean): void {
  const { starts, words } = leaf;
  let to = 0;
  for (let from = 0; from < leaf.count; from += 1) {
    const base = from * WORDS;
    if (condition(words[base]! & FLAG_MASK, words[base + 1]!, words[base + 2]!)) continue;
    if (to !== from) {
      starts[to] = starts[from]!;
      words.copyWithin(to * WORDS, base, base + WORDS);
    }
    to += 1;
  }
  leaf.count = to;
}

function joinLeaf(left: Leaf, right: Leaf): void {
  left.starts.set(right.starts.subarray(0, right.count), left.count);
  left.words.set(right.words.subarray(0, right.count * WORDS), left.count * WORDS);
  left.count += right.count;
}

function lowerBound(starts: Float64Array, count: number, start: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (starts[middle]! < start) low = middle + 1;
    else high = middle;
  }
  return low;
}

function setWords(
  words: Uint32Array,
  base: number,
  packed: number,
  source: number,
  offset: number,
  crc: number,
): void {
  words[base] = packed;
  words[base + 1] = source;
  words[base + 2] = offset;
  words[base + 3] = crc;
}
