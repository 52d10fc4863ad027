// What the blocks of a disk hold, roughly: nothing, plain data, or data so dense that it is compressed or encrypted. A byte
// for each block that is followed; of disks with more blocks than the bound one of every so many is, chosen by a hash,
// so that shares stay right.
import { isZero } from '@midmirror/basis';

export const BlockClass = { unknown: 0, empty: 1, plain: 2, dense: 3 } as const;
export type BlockClass = (typeof BlockClass)[keyof typeof BlockClass];

/** Bits a byte above which a block is dense. Random ones of 4 KiB have 7.94 to 7.97, of gzip mostly above 7.78. */
const DENSE_BITS = 7.7;
const COUNTS = new Uint32Array(256);

/** Shannon entropy, in bits a byte: 0 to 8. */
export function entropyBits(bytes: Uint8Array): number {
  COUNTS.fill(0);
  for (let i = 0; i < bytes.length; i += 1) COUNTS[bytes[i]!]! += 1;
  let sum = 0;
  for (let value = 0; value < 256; value += 1) {
    const count = COUNTS[value]!;
    if (count > 0) sum += count * Math.log2(count);
  }
  return bytes.length === 0 ? 0 : Math.log2(bytes.length) - sum / bytes.length;
}

/**
 * How far from even the values are. Of random bytes 255 in the mean, whatever their number, which one block says nothing
 * about, and some hundreds together do: gzip has 290 and more, zstd 280, JPEG more; only xz is as even.
 */
export function chiSquare(bytes: Uint8Array): number {
  COUNTS.fill(0);
  for (let i = 0; i < bytes.length; i += 1) COUNTS[bytes[i]!]! += 1;
  let squares = 0;
  for (let value = 0; value < 256; value += 1) squares += COUNTS[value]! * COUNTS[value]!;
  return (squares * 256) / bytes.length - bytes.length;
}

export function classOf(block: Uint8Array): BlockClass {
  if (isZero(block)) return BlockClass.empty;
  return entropyBits(block) >= DENSE_BITS ? BlockClass.dense : BlockClass.plain;
}

export class BlockClasses {
  readonly blockBytes: number;
  /** One of so many blocks is followed. */
  readonly stride: number;
  readonly #classes: Uint8Array;
  readonly #counts = [0, 0, 0, 0];

  constructor(sizeBytes: number, blockBytes: number, blocksMax: number) {
    const blocks = Math.ceil(sizeBytes / blockBytes);
    this.blockBytes = blockBytes;
    this.stride = Math.max(1, Math.ceil(blocks / blocksMax));
    this.#classes = new Uint8Array(Math.ceil(blocks / this.stride));
    this.#counts[BlockClass.unknown] = this.#classes.length;
  }

  /** Of the blocks that are followed. */
  count(kind: BlockClass): number {
    return this.#counts[kind]!;
  }

  /** Calls `visit` with the index and first byte of each followed block that lies whole in the range. */
  within(startBytes: number, lengthBytes: number, visit: (index: number, atBytes: number) => void): void {
    const first = Math.ceil(startBytes / this.blockBytes);
    const end = Math.floor((startBytes + lengthBytes) / this.blockBytes);
    const groups = Math.ceil(end / this.stride);
    for (let group = Math.floor(first / this.stride); group < groups; group += 1) {
      const block = group * this.stride + (this.stride === 1 ? 0 : mixed(group) % this.stride);
      if (block >= first && block < end) visit(group, block * this.blockBytes);
    }
  }

  /** What it held before. */
  put(index: number, kind: BlockClass): BlockClass {
    const before = this.#classes[index] as BlockClass;
    this.#classes[index] = kind;
    this.#counts[before]! -= 1;
    this.#counts[kind]! += 1;
    return before;
  }
}

/** As the last step of murmur3: neighbours have nothing in common. */
function mixed(number: number): number {
  let bits = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
