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
  /** Leaves that share one array. */
  readonly slabShift: number;
}

export const TREE_SHAPE: TreeShape = { leafShift: 6, fanShift: 8, slabShift: 9 };

/**
 * Records ordered by address: flags (0 to 511), source, offset, crc and, if there are four words, length. A record is
 * named by its slot; slots hold until the next `open` or `append`.
 */
export class MultiwayTree {
  readonly #wordsEach: number;
  readonly #leafShift: number;
  readonly #fanShift: number;
  readonly #slabShift: number;
  readonly #slotMask: number;
  // Leaves: one row of records each, and the leaf to the right. The rows lie in slabs, so that growing copies none.
  readonly #keys: Float64Array[] = [];
  readonly #words: Uint32Array[] = [];
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
    this.#slabShift = shape.leafShift + shape.slabShift;
    this.#slotMask = (1 << this.#slabShift) - 1;
    this.#keys.push(new Float64Array(1 << shape.leafShift));
    this.#words.push(new Uint32Array(wordsEach << shape.leafShift));
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
    const slabs = [...this.#keys, ...this.#words];
    return (
      slabs.reduce((bytes, slab) => bytes + slab.byteLength, 0) +
      this.#counts.byteLength +
      this.#links.byteLength +
      this.#separators.byteLength +
      this.#children.byteLength +
      this.#fans.byteLength
    );
  }

  startOf(slot: number): number {
    return Math.floor(this.#keyOf(slot) / GRAIN) * GRAIN;
  }
  flagsOf(slot: number): number {
    const key = this.#keyOf(slot);
    return key - Math.floor(key / GRAIN) * GRAIN;
  }
  sourceOf(slot: number): number {
    return this.#wordOf(slot, 0);
  }
  offsetOf(slot: number): number {
    return this.#wordOf(slot, 1);
  }
  crcOf(slot: number): number {
    return this.#wordOf(slot, 2);
  }
  /** Only of a tree of four words each. */
  lengthOf(slot: number): number {
    return this.#wordOf(slot, 3);
  }

  /** Slot of the last record that begins at or before an address; -1: there is none. */
  find(address: number): number {
    const bound = Math.floor(address / GRAIN) * GRAIN + (GRAIN - 1);
    let node = this.#root;
    const separators = this.#separators;
    for (let level = this.#height; level > 0; level -= 1) {
      node = this.#children[lastUpTo(separators, node << this.#fanShift, this.#fans[node]!, bound)]!;
    }
    const from = node << this.#leafShift;
    const keys = this.#keys[from >>> this.#slabShift]!;
    const base = from & this.#slotMask;
    const at = lastUpTo(keys, base, this.#counts[node]!, bound);
    return this.#size > 0 && keys[at]! <= bound ? from + at - base : -1;
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
    const slab = slot >>> this.#slabShift;
    const row = slot & this.#slotMask;
    this.#keys[slab]![row] = start + flags;
    const words = this.#words[slab]!;
    const at = row * this.#wordsEach;
    words[at] = source;
    words[at + 1] = offset;
    words[at + 2] = crc;
    if (this.#wordsEach === 4) words[at + 3] = length;
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
    const behind = this.#counts[leaf]! - at;
    if (behind > 0) this.#copy(from, from + behind, from + records);
    this.#counts[leaf]! += records;
    this.#size += records;
    return from;
  }

  /**
   * Makes room for a record behind all others. The leaves are left five to eight eighths full, in turn: equally full
   * ones would all split at once when more comes later.
   */
  append(start: number): number {
    const full = Math.ceil(((5 + (this.#leaves & 3)) << this.#leafShift) / 8);
    if (this.#counts[this.#lastLeaf]! >= full) this.#addLastLeaf(start);
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
    if (level === 0) {
      leaves.push(node);
      for (let slot = base; slot < base + count; slot += 1) {
        const start = this.startOf(slot);
        assert(start >= from && start < to, 'a record lies in the range of its node');
        assert(slot === base || start > this.startOf(slot - 1), 'records ascend');
      }
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
    this.#copy(from + kept, from + count, to);
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
    const leaf = this.#leaves;
    this.#leaves += 1;
    if (leaf === this.#counts.length) {
      const capacity = Math.ceil(leaf * GROWTH) + 1;
      this.#counts = grownCounts(this.#counts, capacity);
      this.#links = grownLinks(this.#links, capacity);
    }
    this.#links[leaf] = -1;
    this.#makeRow(leaf << this.#leafShift);
    return leaf;
  }

  /** Only the first slab grows, by doubling, so that a small tree is small; the others are made whole. */
  #makeRow(slot: number): void {
    const slab = slot >>> this.#slabShift;
    const keys = this.#keys[slab];
    const slots = keys === undefined ? 1 << this.#slabShift : keys.length * 2;
    if (keys === undefined) {
      this.#keys.push(new Float64Array(slots));
      this.#words.push(new Uint32Array(slots * this.#wordsEach));
    } else if ((slot & this.#slotMask) >= keys.length) {
      this.#keys[slab] = grownFloats(keys, slots);
      this.#words[slab] = grownWords(this.#words[slab]!, slots * this.#wordsEach);
    }
  }

  /** Copies records `[from, to)` of one leaf to the slots from `target` on, of one leaf too. */
  #copy(from: number, to: number, target: number): void {
    const each = this.#wordsEach;
    const keys = this.#keys[from >>> this.#slabShift]!;
    const words = this.#words[from >>> this.#slabShift]!;
    const first = from & this.#slotMask;
    const end = first + to - from;
    const at = target & this.#slotMask;
    if (from >>> this.#slabShift === target >>> this.#slabShift) {
      keys.copyWithin(at, first, end);
      words.copyWithin(at * each, first * each, end * each);
    } else {
      this.#keys[target >>> this.#slabShift]!.set(keys.subarray(first, end), at);
      this.#words[target >>> this.#slabShift]!.set(words.subarray(first * each, end * each), at * each);
    }
  }

  #keyOf(slot: number): number {
    return this.#keys[slot >>> this.#slabShift]![slot & this.#slotMask]!;
  }

  #wordOf(slot: number, word: number): number {
    return this.#words[slot >>> this.#slabShift]![(slot & this.#slotMask) * this.#wordsEach + word]!;
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
