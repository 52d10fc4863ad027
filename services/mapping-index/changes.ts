// Which bytes differ between two points: the ranges whose places differ are read at both and compared.
import type { Mirror } from './mirror.ts';
import { limits } from './limits.ts';

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
  const sizeBytes = from.sizeBytes;
  let at = after;
  while (at < sizeBytes) {
    const { lengthBytes, same } = placesAt(from, to, at, sizeBytes);
    if (same) {
      at += lengthBytes;
      continue;
    }
    const length = Math.min(lengthBytes, limits.compareBytes);
    await from.read(at, length, left, 0);
    await to.read(at, length, right, 0);
    for (let sector = 0; sector < length; sector += limits.sectorBytes) {
      if (equal(left, right, sector, limits.sectorBytes)) continue;
      const last = extents.at(-1);
      if (last !== undefined && last.offset + last.length === at + sector) last.length += limits.sectorBytes;
      else if (extents.length === limit) return { extents, next: at + sector };
      else extents.push({ offset: at + sector, length: limits.sectorBytes });
    }
    at += length;
  }
  return { extents, next: null };
}

/** How far from `at` on both points have their bytes at the same place, or not. */
function placesAt(
  from: Mirror,
  to: Mirror,
  at: number,
  sizeBytes: number,
): { lengthBytes: number; same: boolean } {
  const a = placeOf(from, at, sizeBytes);
  const b = placeOf(to, at, sizeBytes);
  return { lengthBytes: Math.min(a.end, b.end) - at, same: a.place === b.place };
}

function placeOf(mirror: Mirror, at: number, sizeBytes: number): { end: number; place: string } {
  const c = mirror.vrmo.cursor(at);
  if (!c.valid || c.start > at)
    return { end: c.valid ? Math.min(c.start, sizeBytes) : sizeBytes, place: 'mim' };
  const zero = (c.flags & 1) !== 0;
  return { end: c.end, place: zero ? 'zero' : `${c.flags & 4}/${c.source}/${c.offset + at - c.start}` };
}

function equal(left: Uint8Array, right: Uint8Array, at: number, length: number): boolean {
  return Buffer.compare(left.subarray(at, at + length), right.subarray(at, at + length)) === 0;
}
