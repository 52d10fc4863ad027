// Which bytes differ between two points: the ranges whose places differ are read at both and compared.
import { limits } from './limits.ts';
import type { Mirror, Place } from './mirror.ts';

export interface Changes {
  extents: { offset: number; length: number }[];
  /** Go on with `after` = this; null: that was all. */
  next: number | null;
}

/** Extents of sectors (512 bytes) that differ, in order, from `after` on; at most `limit`. */
export async function changesBetween(
  from: Mirror,
  to: Mirror,
  after: number,
  limit: number,
): Promise<Changes> {
  const extents: { offset: number; length: number }[] = [];
  const left = new Uint8Array(limits.compareBytes);
  const right = new Uint8Array(limits.compareBytes);
  for await (const range of movedRanges(from, to, after)) {
    for (let at = range.offset; at < range.offset + range.length; at += limits.compareBytes) {
      const length = Math.min(range.offset + range.length - at, limits.compareBytes);
      await from.read(at, length, left, 0);
      await to.read(at, length, right, 0);
      for (let sector = 0; sector < length; sector += limits.sectorBytes) {
        if (equal(left, right, sector, limits.sectorBytes)) continue;
        const last = extents.at(-1);
        if (last !== undefined && last.offset + last.length === at + sector)
          last.length += limits.sectorBytes;
        else if (extents.length === limit) return { extents, next: at + sector };
        else extents.push({ offset: at + sector, length: limits.sectorBytes });
      }
    }
  }
  return { extents, next: null };
}

/** Ranges from `after` on that lie at different places at the two points, in order: elsewhere the bytes are the same. */
export async function* movedRanges(
  from: Mirror,
  to: Mirror,
  after: number,
): AsyncGenerator<{ offset: number; length: number }> {
  let step: number = limits.compareStepBytes;
  for (let at = after; at < from.sizeBytes; ) {
    const length = Math.min(step, from.sizeBytes - at);
    const a = await from.placesIn(at, length);
    const b = await to.placesIn(at, length);
    yield* different(a, b, at);
    at += length;
    // A large disk with little on it is gone over in large steps.
    if (a.length + b.length < limits.comparePlacesFew) step = Math.min(step * 2, limits.compareStepBytesMax);
    else step = limits.compareStepBytes;
  }
}

function* different(
  a: readonly Place[],
  b: readonly Place[],
  start: number,
): Generator<{ offset: number; length: number }> {
  let at = start;
  let i = 0;
  let j = 0;
  let restA = a[0]?.lengthBytes ?? 0;
  let restB = b[0]?.lengthBytes ?? 0;
  while (i < a.length && j < b.length) {
    const length = Math.min(restA, restB);
    if (a[i]!.name !== b[j]!.name) yield { offset: at, length };
    at += length;
    restA -= length;
    restB -= length;
    if (restA === 0) restA = a[++i]?.lengthBytes ?? 0;
    if (restB === 0) restB = b[++j]?.lengthBytes ?? 0;
  }
}

function equal(left: Uint8Array, right: Uint8Array, at: number, length: number): boolean {
  return Buffer.compare(left.subarray(at, at + length), right.subarray(at, at + length)) === 0;
}
