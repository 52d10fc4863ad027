// Which bytes differ between two points: the ranges whose places differ are read at both and compared.
import { limits } from './limits.ts';
import type { Mirror } from './mirror.ts';
import { differenceOf, type Placed } from './point-difference.ts';

/** Of a mirror, what a comparison needs. */
type Compared = Placed & Pick<Mirror, 'read'>;

export interface Changes {
  extents: { offset: number; length: number }[];
  /** Go on with `after` = this; null: that was all. */
  next: number | null;
}

export interface WantedChanges {
  after: number;
  limit: number;
  /** Only there: sorted, apart from each other. Absent: everywhere. */
  within?: readonly { offset: number; length: number }[] | undefined;
}

/** Extents of sectors (512 bytes) that differ, in order, from `after` on; at most `limit`. */
export async function changesBetween(
  from: Compared,
  to: Compared,
  { after, limit, within = [{ offset: 0, length: from.sizeBytes }] }: WantedChanges,
): Promise<Changes> {
  const comparison = new Comparison(from, to, limit);
  const { extents } = comparison;
  for (const { offset, length } of within) {
    const end = Math.min(offset + length, from.sizeBytes);
    if (end <= after) continue;
    const next = await comparison.look(Math.max(offset, after), end);
    if (next !== null) return { extents, next };
  }
  return { extents, next: null };
}

class Comparison {
  readonly extents: { offset: number; length: number }[] = [];
  readonly #from: Compared;
  readonly #to: Compared;
  readonly #limit: number;
  readonly #left = new Uint8Array(limits.compareBytes);
  readonly #right = new Uint8Array(limits.compareBytes);

  constructor(from: Compared, to: Compared, limit: number) {
    this.#from = from;
    this.#to = to;
    this.#limit = limit;
  }

  /** Adds what differs in a range to `extents`. Where to go on when they are as many as may be; null: that was all. */
  async look(start: number, before: number): Promise<number | null> {
    for await (const span of differenceOf(this.#from, this.#to, start, before)) {
      const end = span.startBytes + span.lengthBytes;
      for (let at = span.startBytes; span.differs && at < end; at += limits.compareBytes) {
        const next = await this.#compare(at, Math.min(end - at, limits.compareBytes));
        if (next !== null) return next;
      }
    }
    return null;
  }

  async #compare(at: number, length: number): Promise<number | null> {
    const [left, right] = [this.#left, this.#right];
    await this.#from.read(at, length, left, 0);
    await this.#to.read(at, length, right, 0);
    for (let sector = 0; sector < length; sector += limits.sectorBytes) {
      if (equal(left, right, sector, limits.sectorBytes)) continue;
      const last = this.extents.at(-1);
      if (last !== undefined && last.offset + last.length === at + sector) last.length += limits.sectorBytes;
      else if (this.extents.length === this.#limit) return at + sector;
      else this.extents.push({ offset: at + sector, length: limits.sectorBytes });
    }
    return null;
  }
}

function equal(left: Uint8Array, right: Uint8Array, at: number, length: number): boolean {
  return Buffer.compare(left.subarray(at, at + length), right.subarray(at, at + length)) === 0;
}
