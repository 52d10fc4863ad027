// What may differ between two points, told from where their bytes lie: the same place holds the same bytes. No data
// is read. Served by NBD as the metadata context `midmirror:changed-since:<point>` of a mirror.
import type { ContextExtent, ExportContexts } from '@midmirror/block-device';
import { limits } from './limits.ts';
import { differenceOf, type Placed } from './point-difference.ts';
import { staysPut } from './points.ts';

const CHANGED_SINCE = 'midmirror:changed-since:';
/** Flag of a range that may differ; ranges without it are the same. */
const MAY_DIFFER = 1;

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
 * one extent, at `extentsMax`, or at `piecesMax` pieces of both maps so that no question stops the loop for long.
 */
export async function mayDiffer(
  one: Placed,
  other: Placed,
  start: number,
  length: number,
  extentsMax: number,
  piecesMax: number,
): Promise<ContextExtent[]> {
  const extents: ContextExtent[] = [];
  let pieces = 0;
  for await (const { lengthBytes, differs } of differenceOf(one, other, start, start + length)) {
    const flags = differs ? MAY_DIFFER : 0;
    const last = extents.at(-1);
    if (last?.flags === flags) last.lengthBytes += lengthBytes;
    else if (extents.length === extentsMax) break;
    else extents.push({ lengthBytes, flags });
    pieces += 1;
    if (pieces === piecesMax) break;
  }
  return extents;
}
