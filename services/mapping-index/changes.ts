// Which bytes differ between two points: the ranges whose places differ are read at both and compared.
import { limits } from './limits.ts';
import type { Mirror } from './mirror.ts';
import { differenceOf } from './point-difference.ts';

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
  for await (const { startBytes, lengthBytes, differs } of differenceOf(from, to, after, from.sizeBytes)) {
    const end = startBytes + lengthBytes;
    for (let at = startBytes; differs && at < end; at += limits.compareBytes) {
      const length = Math.min(end - at, limits.compareBytes);
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

function equal(left: Uint8Array, right: Uint8Array, at: number, length: number): boolean {
  return Buffer.compare(left.subarray(at, at + length), right.subarray(at, at + length)) === 0;
}
