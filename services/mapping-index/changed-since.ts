// What may differ between two points, told from where their bytes lie: the same place holds the same bytes. No data
// is read. Served by NBD as the metadata context `midmirror:changed-since:<point>` of a mirror.
import type { ContextExtent, ExportContexts } from '@midmirror/block-device';
import { type ExtentCursor, ExtentFlag } from '@midmirror/extent-map';
import { limits } from './limits.ts';
import type { Mirror } from './mirror.ts';
import { staysPut } from './points.ts';

/** What is asked of a mirror: its extents in order, and where the MIM between them holds nothing. */
export interface Placed {
  readonly vrmo: { cursor(startBytes: number): ExtentCursor };
  span: Mirror['span'];
}

export const CHANGED_SINCE = 'midmirror:changed-since:';
/** Flag of a range that may differ; ranges without it are the same. */
export const MAY_DIFFER = 1;

/** The contexts of a mirror. `openOther` opens the point that a text names, pinned until `release`. */
export function changedSinceContexts(
  mirror: Placed,
  openOther: (point: string) => Promise<{ mirror: Placed; release: () => Promise<void> }>,
): ExportContexts {
  return {
    advertised: [CHANGED_SINCE],
    open: async (name) => {
      if (!name.startsWith(CHANGED_SINCE)) return null;
      const point = name.slice(CHANGED_SINCE.length);
      const other = await openOther(point);
      return {
        multiConn: staysPut(point),
        blockStatus: async (start, length, extentsMax) =>
          mayDiffer(mirror, other.mirror, start, length, extentsMax, limits.comparedPiecesMax),
        release: other.release,
      };
    },
  };
}

/**
 * Extents that cover `[start, start + length)` from its start, with `MAY_DIFFER` or 0. Ends early, after at least
 * one extent, at `extentsMax`, or at `piecesMax` pieces of either map so that no question stops the loop for long.
 *
 * Both maps are looked at in one turn of the loop. Each is right at any moment, also in the middle of a sync, so
 * one place named by both holds one content. A map that a sync has moved before the other names another place for a
 * while: then too much is said to differ, never too little.
 */
export function mayDiffer(
  one: Placed,
  other: Placed,
  start: number,
  length: number,
  extentsMax: number,
  piecesMax: number,
): ContextExtent[] {
  const extents: ContextExtent[] = [];
  const end = start + length;
  const a = one.vrmo.cursor(start);
  const b = other.vrmo.cursor(start);
  let at = start;
  for (let pieces = 0; at < end && pieces < piecesMax; pieces += 1) {
    if (a.valid && a.end <= at) a.next();
    if (b.valid && b.end <= at) b.next();
    const until = Math.min(endOfPiece(a, at, end), endOfPiece(b, at, end));
    const { lengthBytes, flags } = comparePiece(one, a, other, b, at, until);
    const last = extents.at(-1);
    if (last?.flags === flags) last.lengthBytes += lengthBytes;
    else if (extents.length === extentsMax) break;
    else extents.push({ lengthBytes, flags });
    at += lengthBytes;
  }
  return extents;
}

/** In `[at, until)` each point has its bytes on the MIM, or in one extent. The length of what is of one kind. */
function comparePiece(
  one: Placed,
  a: ExtentCursor,
  other: Placed,
  b: ExtentCursor,
  at: number,
  until: number,
): ContextExtent {
  const lengthBytes = until - at;
  const aOnMim = !a.valid || a.start > at;
  const bOnMim = !b.valid || b.start > at;
  if (aOnMim && bOnMim) return { lengthBytes, flags: 0 };
  if (!aOnMim && !bOnMim) return { lengthBytes, flags: samePlace(a, b, at) ? 0 : MAY_DIFFER };
  if (((aOnMim ? b : a).flags & ExtentFlag.zero) === 0) return { lengthBytes, flags: MAY_DIFFER };
  const mim = (aOnMim ? one : other).span(at, lengthBytes);
  return { lengthBytes: mim.lengthBytes, flags: mim.hole ? 0 : MAY_DIFFER };
}

/** The ends of both extents may differ: one may have been cut. */
function samePlace(a: ExtentCursor, b: ExtentCursor, at: number): boolean {
  if ((a.flags & ExtentFlag.zero) !== 0 || (b.flags & ExtentFlag.zero) !== 0)
    return (a.flags & b.flags & ExtentFlag.zero) !== 0;
  return (
    ((a.flags ^ b.flags) & ExtentFlag.backward) === 0 &&
    a.source === b.source &&
    a.offset + at - a.start === b.offset + at - b.start
  );
}

function endOfPiece(cursor: ExtentCursor, at: number, end: number): number {
  if (!cursor.valid) return end;
  return Math.min(cursor.start > at ? cursor.start : cursor.end, end);
}
