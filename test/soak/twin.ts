// The naive twin of a soak: which write each sector was last made by, at any point. Five bytes a write, and a whole
// copy each few thousand of them: bounded, and independent of everything that it is compared with. The bytes of a
// sector follow from its address and the number of the write that made it, and can be told apart when they are wrong.
import assert from 'node:assert/strict';

export const SECTOR = 512;
export const SECTORS = 8192;
export const SIZE = SECTORS * SECTOR;
/** Points between two whole copies. */
const COPY_WRITES = 2048;
const WORDS = SECTOR / 4;

/** The number of the write that made each sector; 0: zeroes. */
export type Versions = Uint32Array;

export class Twin {
  readonly #starts: Uint16Array;
  readonly #lengths: Uint8Array;
  readonly #zero: Uint8Array;
  readonly #copies: Versions[] = [new Uint32Array(SECTORS)];
  readonly #latest: Versions = new Uint32Array(SECTORS);
  #seq = 0;

  constructor(writesMax: number) {
    this.#starts = new Uint16Array(writesMax + 1);
    this.#lengths = new Uint8Array(writesMax + 1);
    this.#zero = new Uint8Array(writesMax + 1);
  }

  get seq(): number {
    return this.#seq;
  }

  /** The next write, of sectors; its number. */
  write(start: number, length: number, zero: boolean): number {
    this.#seq += 1;
    this.#starts[this.#seq] = start;
    this.#lengths[this.#seq] = length;
    this.#zero[this.#seq] = zero ? 1 : 0;
    this.#put(this.#latest, this.#seq);
    if (this.#seq % COPY_WRITES === 0) this.#copies.push(this.#latest.slice());
    return this.#seq;
  }

  at(seq: number): Versions {
    assert.ok(seq <= this.#seq, `write ${seq} has been made`);
    const copy = Math.floor(seq / COPY_WRITES);
    const versions = this.#copies[copy]!.slice();
    for (let i = copy * COPY_WRITES + 1; i <= seq; i += 1) this.#put(versions, i);
    return versions;
  }

  /** Bytes, of the writes after `seq`, in their order. */
  *writesAfter(seq: number): Generator<{ start: number; length: number }> {
    for (let i = seq + 1; i <= this.#seq; i += 1)
      yield { start: this.#starts[i]! * SECTOR, length: this.#lengths[i]! * SECTOR };
  }

  #put(versions: Versions, seq: number): void {
    const start = this.#starts[seq]!;
    versions.fill(this.#zero[seq] === 1 ? 0 : seq, start, start + this.#lengths[seq]!);
  }
}

/** The bytes of `count` sectors from `first` on, into the start of `target`. */
function fillSectors(target: Uint32Array, versions: Versions, first: number, count: number): void {
  for (let i = 0; i < count; i += 1) {
    const version = versions[first + i]!;
    const at = i * WORDS;
    if (version === 0) target.fill(0, at, at + WORDS);
    else fillSector(target, at, version, first + i);
  }
}

/** What a write of that number puts into `count` sectors from `first` on. */
export function bytesOfWrite(version: number, first: number, count: number): Uint8Array {
  const words = new Uint32Array(count * WORDS);
  for (let i = 0; i < count; i += 1) fillSector(words, i * WORDS, version, first + i);
  return new Uint8Array(words.buffer);
}

/** Number of the write and address first, so that a wrong sector tells where it is from. */
function fillSector(target: Uint32Array, at: number, version: number, sector: number): void {
  target[at] = version;
  target[at + 1] = sector;
  let word = Math.imul(version, 0x9e3779b1) ^ Math.imul(sector, 0x85ebca6b);
  for (let i = 2; i < WORDS; i += 1) {
    word = (word + 0x6d2b79f5) | 0;
    target[at + i] = word;
  }
}

const expected = new Uint32Array(SIZE / 4);

/** Fails unless `bytes` are those of `versions` from sector `first` on; says what stands there instead. */
export function assertSectors(bytes: Buffer, versions: Versions, first: number, what: string): void {
  const count = bytes.length / SECTOR;
  fillSectors(expected, versions, first, count);
  const wanted = Buffer.from(expected.buffer, 0, bytes.length);
  if (bytes.equals(wanted)) return;
  const wrong: string[] = [];
  let sectors = 0;
  for (let i = 0; i < count; i += 1) {
    if (bytes.compare(wanted, i * SECTOR, (i + 1) * SECTOR, i * SECTOR, (i + 1) * SECTOR) === 0) continue;
    sectors += 1;
    if (wrong.length > 3) continue;
    const [write, sector] = [bytes.readUInt32LE(i * SECTOR), bytes.readUInt32LE(i * SECTOR + 4)];
    wrong.push(
      `sector ${first + i} is of write ${versions[first + i]}, read: write ${write}, sector ${sector}`,
    );
  }
  assert.fail(`${what}: ${sectors} of ${count} sectors differ: ${wrong.join('; ')}`);
}
