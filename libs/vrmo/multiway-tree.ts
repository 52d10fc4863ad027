// The multi-way tree of FIG. 19 and [0089]: every node divides its range of addresses into many subranges, each with a
// pointer to another node or, at the bottom, to a physical extent. Nodes are rows of a few typed arrays, no object
// each. It only grows: a record's address never changes and records are never removed; who must let go of many
// builds anew. So all leaves are equally deep, and full by half at least but for those at the right edge.
import { assert } from '@midmirror/basis';

/** Flags of a record lie in the low bits of its key: addresses are multiples of this. */
const GRAIN = 512;
const GROWTH = 1.25;
const LEVELS_MAX = 32;

/** Sizes of nodes, as powers of two; tests take small ones so that a few records make a deep tree. */
export interface TreeShape {
  /** Records of a leaf. */
  readonly leafShift: number;
  /** Children of a node above the leaves. */
  readonly fanShift: number;
}

export const TREE_SHAPE: TreeShape = { leafShift: 6, fanShift: 7 };

/**
 * Records ordered by address: flags (0 to 511), source, offset, crc and, if there are four words, length. A record is
 * named by its slot; slots hold until the next `open` or `append`.
 */
export class MultiwayTree {
  readonly #wordsEach: number;
  readonly #leafShift: number;
  readonly #fanShift: number;
  // Leaves: one row of records each, and the leaf to the right.
  #keys: Float64Array;
  #words: Uint32Array;
  #counts: Uint16Array;
  #links: Int32Array;
  #leaves = 1;
  #lastLeaf = 0;
  // Nodes above: the first address of each child (of the very first: any), and the child.
  #separators: Float64Array;
  #children: Int32Array;
  #fans: Uint16Array;
  #inner = 0;
  #root = 0;
  #height = 0;
  #size = 0;
  readonly #path = new Int32Array(LEVELS_MAX);
  readonly #pathAt = new Int32Array(LEVELS_MAX);

  constructor(wordsEach: 3 | 4, shape: TreeShape) {
    this.#wordsEach = wordsEach;
    this.#leafShift = shape.leafShift;
    this.#fanShift = shape.fanShift;
    this.#keys = new Float64Array(1 << shape.leafShift);
    this.#words = new Uint32Array(wordsEach << shape.leafShift);
    this.#counts = new Uint16Array(1);
    this.#links = new Int32Array(1).fill(-1);
    this.#separators = new Float64Array(0);
    this.#children = new Int32Array(0);
    this.#fans = new Uint16Array(0);
  }

  /** Number of records. */
  get size(): number {
    return this.#size;
  }

  /** Nodes from the root to a record, both ends included. */
  get depth(): number {
    return this.#height + 1;
  }

  get memoryBytes(): number {
    return (
      this.#keys.byteLength +
      this.#words.byteLength +
      this.#counts.byteLength +
      this.#links.byteLength +
      this.#separators.byteLength +
      this.#children.byteLength +
      this.#fans.byteLength
    );
  }

  startOf(slot: number): number {
    return Math.floor(this.#keys[slot]! / GRAIN) * GRAIN;
  }
  flagsOf(slot: number): number {
    const key = this.#keys[slot]!;
    return key - Math.floor(key / GRAIN) * GRAIN;
  }
  sourceOf(slot: number): number {
    return this.#words[slot * this.#wordsEach]!;
  }
  offsetOf(slot: number): number {
    return this.#words[slot * this.#wordsEach + 1]!;
  }
  crcOf(slot: number): number {
    return this.#words[slot * this.#wordsEach + 2]!;
  }
  /** Only of a tree of four words each. */
  lengthOf(slot: number): number {
    return this.#words[slot * this.#wordsEach + 3]!;
  }

  /** Slot of the last record that begins at or before an address; -1: there is none. */
  find(address: number): number {
    const bound = Math.floor(address / GRAIN) * GRAIN + (GRAIN - 1);
    let node = this.#root;
    const separators = this.#separators;
    for (let level = this.#height; level > 0; level -= 1) {
      node = this.#children[lastUpTo(separators, node << this.#fanShift, this.#fans[node]!, bound)]!;
    }
    const slot = lastUpTo(this.#keys, node << this.#leafShift, this.#counts[node]!, bound);
    return this.#size > 0 && this.#keys[slot]! <= bound ? slot : -1;
  }

  /** Slot of the first record; -1: there is none. */
  first(): number {
    return this.#size > 0 ? 0 : -1;
  }

  /** Slot of the record behind another; -1: there is none. */
  next(slot: number): number {
    const leaf = slot >>> this.#leafShift;
    if (slot + 1 < (leaf << this.#leafShift) + this.#counts[leaf]!) return slot + 1;
    const right = this.#links[leaf]!;
    return right < 0 ? -1 : right << this.#leafShift;
  }

  write(
    slot: number,
    start: number,
    flags: number,
    source: number,
    offset: number,
    crc: number,
    length: number,
  ): void {
    this.#keys[slot] = start + flags;
    const at = slot * this.#wordsEach;
    this.#words[at] = source;
    this.#words[at + 1] = offset;
    this.#words[at + 2] = crc;
    if (this.#wordsEach === 4) this.#words[at + 3] = length;
  }

  /**
   * Makes room for one or two records behind a slot (-1: before all others), to be written at once. The first of them
   * will begin at `start`. Gives the slot of the first; the second follows it.
   */
  open(slot: number, records: 1 | 2, start: number): number {
    let leaf = slot < 0 ? 0 : slot >>> this.#leafShift;
    let at = slot < 0 ? 0 : slot + 1 - (leaf << this.#leafShift);
    const capacity = 1 << this.#leafShift;
    if (this.#counts[leaf]! + records > capacity) {
      if (leaf === this.#lastLeaf && at === this.#counts[leaf]) {
        leaf = this.#addLastLeaf(start);
        at = 0;
      } else {
        const kept = this.#splitLeaf(leaf);
        if (at > kept) {
          leaf = this.#links[leaf]!;
          at -= kept;
        }
      }
    }
    const from = (leaf << this.#leafShift) + at;
    const end = (leaf << this.#leafShift) + this.#counts[leaf]!;
    if (from < end) {
      this.#keys.copyWithin(from + records, from, end);
      const each = this.#wordsEach;
      this.#words.copyWithin((from + records) * each, from * each, end * each);
    }
    this.#counts[leaf]! += records;
    this.#size += records;
    return from;
  }

  /** Makes room for a record behind all others, in leaves that keep an eighth free for what comes later. */
  append(start: number): number {
    const capacity = 1 << this.#leafShift;
    if (this.#counts[this.#lastLeaf]! >= capacity - (capacity >>> 3)) this.#addLastLeaf(start);
    const leaf = this.#lastLeaf;
    const slot = (leaf << this.#leafShift) + this.#counts[leaf]!;
    this.#counts[leaf]! += 1;
    this.#size += 1;
    return slot;
  }

  /** Asserts what the first lines of this file promise. Linear: for tests. */
  assertSound(): void {
    const leaves: number[] = [];
    this.#walk(this.#root, this.#height, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, true, leaves);
    assert(leaves.length === this.#leaves, 'every leaf hangs in the tree');
    assert(leaves[0] === 0 && leaves.at(-1) === this.#lastLeaf, 'the outer leaves are where they are sought');
    let records = 0;
    leaves.forEach((leaf, i) => {
      assert(this.#links[leaf] === (leaves[i + 1] ?? -1), 'leaves are linked in order');
      records += this.#counts[leaf]!;
    });
    assert(records === this.#size, 'the size is the number of records');
  }

  #walk(node: number, level: number, from: number, to: number, edge: boolean, leaves: number[]): void {
    const shift = level === 0 ? this.#leafShift : this.#fanShift;
    const count = (level === 0 ? this.#counts : this.#fans)[node]!;
    const base = node << shift;
    assert(count <= 1 << shift, 'no node holds more than its row');
    assert(edge || count >= (1 << shift) / 2 - 1, 'a node inside the tree is half full');
    assert(this.#size === 0 || count > 0, 'no node is empty');
    const keys = level === 0 ? this.#keys : this.#separators;
    for (let i = base + (level === 0 ? 0 : 1); i < base + count; i += 1) {
      assert(keys[i]! >= from && keys[i]! < to, 'a key lies in the range of its node');
      assert(i === base || level > 0 || keys[i]! > keys[i - 1]!, 'keys ascend');
    }
    if (level === 0) {
      leaves.push(node);
      return;
    }
    for (let i = base; i < base + count; i += 1) {
      const last = i === base + count - 1;
      const low = i === base ? from : this.#separators[i]!;
      const high = last ? to : this.#separators[i + 1]!;
      assert(low < high, 'separators ascend');
      this.#walk(this.#children[i]!, level - 1, low, high, edge && last, leaves);
    }
  }

  #addLastLeaf(start: number): number {
    this.#descend(Number.MAX_SAFE_INTEGER);
    const leaf = this.#newLeaf();
    this.#links[this.#lastLeaf] = leaf;
    this.#lastLeaf = leaf;
    this.#addChild(1, start, leaf, true);
    return leaf;
  }

  /** Moves the upper half of a leaf into a new one to its right. Gives how many stay. */
  #splitLeaf(leaf: number): number {
    this.#descend(this.startOf(leaf << this.#leafShift));
    const right = this.#newLeaf();
    const from = leaf << this.#leafShift;
    const to = right << this.#leafShift;
    const count = this.#counts[leaf]!;
    const kept = count >>> 1;
    const each = this.#wordsEach;
    this.#keys.copyWithin(to, from + kept, from + count);
    this.#words.copyWithin(to * each, (from + kept) * each, (from + count) * each);
    this.#counts[leaf] = kept;
    this.#counts[right] = count - kept;
    this.#links[right] = this.#links[leaf]!;
    this.#links[leaf] = right;
    if (leaf === this.#lastLeaf) this.#lastLeaf = right;
    this.#addChild(1, this.startOf(to), right, false);
    return kept;
  }

  /** Notes which node of each level, and which child of it, leads to an address. */
  #descend(address: number): void {
    let node = this.#root;
    for (let level = this.#height; level > 0; level -= 1) {
      const base = node << this.#fanShift;
      const at = lastUpTo(this.#separators, base, this.#fans[node]!, address);
      this.#path[level] = node;
      this.#pathAt[level] = at - base;
      node = this.#children[at]!;
    }
  }

  /** Hangs a node behind the one that `#descend` came by at `level`. `last`: it is the last of its level. */
  #addChild(level: number, separator: number, child: number, last: boolean): void {
    if (level > this.#height) {
      const root = this.#newInner();
      this.#putChild(root, 0, 0, this.#root);
      this.#putChild(root, 1, separator, child);
      this.#root = root;
      this.#height = level;
      return;
    }
    let node = this.#path[level]!;
    let at = this.#pathAt[level]! + 1;
    if (this.#fans[node] === 1 << this.#fanShift) {
      const kept = last ? 1 << this.#fanShift : 1 << (this.#fanShift - 1);
      const right = this.#splitInner(node, kept);
      this.#addChild(level + 1, last ? separator : this.#separators[right << this.#fanShift]!, right, last);
      if (at > kept || last) {
        node = right;
        at -= kept;
      }
    }
    this.#putChild(node, at, separator, child);
  }

  #splitInner(node: number, kept: number): number {
    const right = this.#newInner();
    const from = node << this.#fanShift;
    const count = this.#fans[node]!;
    this.#separators.copyWithin(right << this.#fanShift, from + kept, from + count);
    this.#children.copyWithin(right << this.#fanShift, from + kept, from + count);
    this.#fans[node] = kept;
    this.#fans[right] = count - kept;
    return right;
  }

  #putChild(node: number, at: number, separator: number, child: number): void {
    const base = node << this.#fanShift;
    const end = base + this.#fans[node]!;
    this.#separators.copyWithin(base + at + 1, base + at, end);
    this.#children.copyWithin(base + at + 1, base + at, end);
    this.#separators[base + at] = separator;
    this.#children[base + at] = child;
    this.#fans[node]! += 1;
  }

  #newLeaf(): number {
    if (this.#leaves === this.#counts.length) {
      const capacity = Math.ceil(this.#leaves * GROWTH) + 1;
      this.#keys = grownFloats(this.#keys, capacity << this.#leafShift);
      this.#words = grownWords(this.#words, (capacity * this.#wordsEach) << this.#leafShift);
      this.#counts = grownCounts(this.#counts, capacity);
      this.#links = grownLinks(this.#links, capacity);
    }
    this.#links[this.#leaves] = -1;
    return this.#leaves++;
  }

  #newInner(): number {
    if (this.#inner === this.#fans.length) {
      const capacity = Math.ceil(this.#inner * GROWTH) + 1;
      this.#separators = grownFloats(this.#separators, capacity << this.#fanShift);
      this.#children = grownLinks(this.#children, capacity << this.#fanShift);
      this.#fans = grownCounts(this.#fans, capacity);
    }
    return this.#inner++;
  }
}

/** Index of the last key at or below `bound` among `count` ascending ones from `base` on; `base` when there is none. */
function lastUpTo(keys: Float64Array, base: number, count: number, bound: number): number {
  let low = base;
  for (let left = count; left > 1; ) {
    const half = left >>> 1;
    if (keys[low + half]! <= bound) low += half;
    left -= half;
  }
  return low;
}

function grownFloats(from: Float64Array, length: number): Float64Array {
  const to = new Float64Array(length);
  to.set(from);
  return to;
}

function grownWords(from: Uint32Array, length: number): Uint32Array {
  const to = new Uint32Array(length);
  to.set(from);
  return to;
}

function grownCounts(from: Uint16Array, length: number): Uint16Array {
  const to = new Uint16Array(length);
  to.set(from);
  return to;
}

function grownLinks(from: Int32Array, length: number): Int32Array {
  const to = new Int32Array(length);
  to.set(from);
  return to;
}
