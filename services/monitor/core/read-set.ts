// Which bytes of a mirror a check has looked at: sorted ranges, bounded. At the bound the nearest neighbours are joined,
// so that it may name too much, never too little.

export interface ByteRange {
  startBytes: number;
  lengthBytes: number;
}

export class ReadSet {
  readonly #rangesMax: number;
  #starts: number[] = [];
  #ends: number[] = [];

  constructor(rangesMax: number) {
    this.#rangesMax = rangesMax;
  }

  add(startBytes: number, lengthBytes: number): void {
    if (lengthBytes === 0) return;
    let end = startBytes + lengthBytes;
    let start = startBytes;
    // The first range that ends at or after the start, and how many begin at or before the end: they become one.
    const first = firstAtLeast(this.#ends, start);
    let after = first;
    while (after < this.#starts.length && this.#starts[after]! <= end) after += 1;
    if (after > first) {
      start = Math.min(start, this.#starts[first]!);
      end = Math.max(end, this.#ends[after - 1]!);
    }
    this.#starts.splice(first, after - first, start);
    this.#ends.splice(first, after - first, end);
    if (this.#starts.length > this.#rangesMax) this.#joinNearest();
  }

  get ranges(): ByteRange[] {
    return this.#starts.map((start, i) => ({ startBytes: start, lengthBytes: this.#ends[i]! - start }));
  }

  /** Joins over the smaller half of the gaps: joining one at a time would look at all of them for each. */
  #joinNearest(): void {
    const gaps = this.#starts.slice(1).map((start, i) => start - this.#ends[i]!);
    const joined = [...gaps].sort((a, b) => a - b)[gaps.length >> 1]!;
    const starts = [this.#starts[0]!];
    const ends: number[] = [];
    gaps.forEach((gap, i) => {
      if (gap <= joined) return;
      ends.push(this.#ends[i]!);
      starts.push(this.#starts[i + 1]!);
    });
    ends.push(this.#ends.at(-1)!);
    this.#starts = starts;
    this.#ends = ends;
  }
}

function firstAtLeast(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Whether any byte is in both. Each list is sorted and its ranges don't overlap. */
export function overlaps(some: readonly ByteRange[], others: readonly ByteRange[]): boolean {
  let i = 0;
  let j = 0;
  while (i < some.length && j < others.length) {
    const a = some[i]!;
    const b = others[j]!;
    if (a.startBytes + a.lengthBytes <= b.startBytes) i += 1;
    else if (b.startBytes + b.lengthBytes <= a.startBytes) j += 1;
    else return a.lengthBytes > 0 && b.lengthBytes > 0;
  }
  return false;
}
