// The ranges that a restore moves: ascending, not overlapping, never more than a bound. At the bound neighbours become
// one with what lies between them: the mirror is right everywhere, so more is moved, and nothing wrong.
import { assert } from '@midmirror/basis';

export interface PlannedRange {
  startBytes: number;
  lengthBytes: number;
  /** All zeroes at the point. False: bytes are read from the mirror, which may be zeroes. */
  zeroes: boolean;
}

export interface RangeListOptions {
  rangesMax: number;
  /** Starts and ends are multiples of it, but for the end of the disk. */
  alignBytes: number;
  sizeBytes: number;
}

const GAP_BYTES_FIRST = 4096;
const RANGE_BYTES = 16;

export class RangeList {
  readonly #options: RangeListOptions;
  #starts = new Float64Array(64);
  #ends = new Float64Array(64);
  #zeroes = new Uint8Array(64);
  #count = 0;
  /** What is nearer than this is one range. */
  #gapBytesMax = 0;

  constructor(options: RangeListOptions) {
    assert(options.rangesMax >= 2, 'a list of two ranges at least');
    this.#options = options;
  }

  get count(): number {
    return this.#count;
  }

  /** Of all ranges, and of those whose bytes are read from the mirror. */
  get bytes(): { all: number; data: number } {
    let all = 0;
    let data = 0;
    for (let i = 0; i < this.#count; i += 1) {
      const length = this.#ends[i]! - this.#starts[i]!;
      all += length;
      if (this.#zeroes[i] === 0) data += length;
    }
    return { all, data };
  }

  /** Where the last range ends; 0: there is none. */
  get endBytes(): number {
    return this.#count === 0 ? 0 : this.#ends[this.#count - 1]!;
  }

  /** Ranges come in ascending order and don't overlap, but for what they are rounded outwards by. */
  add(startBytes: number, lengthBytes: number, zeroes: boolean): void {
    if (lengthBytes === 0) return;
    const { alignBytes, sizeBytes, rangesMax } = this.#options;
    const start = Math.floor(startBytes / alignBytes) * alignBytes;
    const end = Math.min(Math.ceil((startBytes + lengthBytes) / alignBytes) * alignBytes, sizeBytes);
    const pure = zeroes && start === startBytes && end === startBytes + lengthBytes;
    // What is rounded is no longer zeroes alone; what lies between stays so.
    const inner = Math.ceil(startBytes / alignBytes) * alignBytes;
    const innerEnd =
      end === sizeBytes && startBytes + lengthBytes === end
        ? end
        : Math.floor((startBytes + lengthBytes) / alignBytes) * alignBytes;
    if (zeroes && !pure && inner < innerEnd) {
      this.add(startBytes, inner - startBytes, false);
      this.add(inner, innerEnd - inner, true);
      return this.add(innerEnd, startBytes + lengthBytes - innerEnd, false);
    }
    assert(start >= 0 && end > start, `a range of ${lengthBytes} bytes at ${startBytes}`);
    if (this.#joins(start, pure)) return this.#extend(start, end, pure);
    if (this.#count === rangesMax) {
      this.#coarsen();
      if (this.#joins(start, pure)) return this.#extend(start, end, pure);
    }
    this.#push(start, end, pure);
  }

  *[Symbol.iterator](): Generator<PlannedRange> {
    for (let i = 0; i < this.#count; i += 1)
      yield {
        startBytes: this.#starts[i]!,
        lengthBytes: this.#ends[i]! - this.#starts[i]!,
        zeroes: this.#zeroes[i] === 1,
      };
  }

  encode(): Uint8Array {
    const bytes = new Uint8Array(this.#count * RANGE_BYTES);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < this.#count; i += 1) {
      view.setFloat64(i * RANGE_BYTES, this.#starts[i]!, true);
      // A sector is even: the lowest bit is free.
      view.setFloat64(i * RANGE_BYTES + 8, this.#ends[i]! - this.#starts[i]! + this.#zeroes[i]!, true);
    }
    return bytes;
  }

  /** Null: these are not ranges of such a disk. */
  static decode(bytes: Uint8Array, options: RangeListOptions): RangeList | null {
    if (bytes.length % RANGE_BYTES !== 0 || bytes.length / RANGE_BYTES > options.rangesMax) return null;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const list = new RangeList(options);
    for (let at = 0; at < bytes.length; at += RANGE_BYTES) {
      const start = view.getFloat64(at, true);
      const word = view.getFloat64(at + 8, true);
      const end = start + word - (word % 2);
      const right = Number.isSafeInteger(start) && Number.isSafeInteger(end) && word >= 2;
      if (!right || start < list.endBytes || end > options.sizeBytes) return null;
      list.#push(start, end, word % 2 === 1);
    }
    return list;
  }

  #joins(start: number, zeroes: boolean): boolean {
    if (this.#count === 0) return false;
    const last = this.#count - 1;
    const gap = start - this.#ends[last]!;
    if (gap < 0) return true;
    return gap === 0 && this.#zeroes[last] === Number(zeroes) ? true : gap < this.#gapBytesMax;
  }

  #extend(start: number, end: number, zeroes: boolean): void {
    const last = this.#count - 1;
    const pure = zeroes && this.#zeroes[last] === 1 && start === this.#ends[last];
    this.#zeroes[last] = Number(pure);
    this.#ends[last] = Math.max(this.#ends[last]!, end);
  }

  /** Halves the count at least, unless that joins everything. */
  #coarsen(): void {
    const wanted = Math.floor(this.#options.rangesMax / 2);
    while (this.#count > wanted) {
      this.#gapBytesMax = Math.max(GAP_BYTES_FIRST, this.#gapBytesMax * 2);
      let kept = 0;
      for (let i = 1; i < this.#count; i += 1) {
        if (this.#starts[i]! - this.#ends[kept]! < this.#gapBytesMax) {
          this.#ends[kept] = this.#ends[i]!;
          this.#zeroes[kept] = 0;
          continue;
        }
        kept += 1;
        this.#starts[kept] = this.#starts[i]!;
        this.#ends[kept] = this.#ends[i]!;
        this.#zeroes[kept] = this.#zeroes[i]!;
      }
      this.#count = kept + 1;
    }
  }

  #push(start: number, end: number, zeroes: boolean): void {
    if (this.#count === this.#starts.length) {
      this.#starts = grown(this.#starts, new Float64Array(this.#count * 2));
      this.#ends = grown(this.#ends, new Float64Array(this.#count * 2));
      this.#zeroes = grown(this.#zeroes, new Uint8Array(this.#count * 2));
    }
    this.#starts[this.#count] = start;
    this.#ends[this.#count] = end;
    this.#zeroes[this.#count] = Number(zeroes);
    this.#count += 1;
  }
}

function grown<T extends Float64Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
