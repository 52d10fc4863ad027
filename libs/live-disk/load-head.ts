// Fills the head map when a disk is opened, from the footers of its segments. Not beyond a limit: what goes over it
// stays where it is found otherwise, the oldest segments first.
import type { ExtentMap } from '@midmirror/extent-map';
import { readSegmentFooter, readSegmentHeader } from '@midmirror/pool';
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';
import type { OlderExtents } from './older-extents.ts';
import type { RingSegment } from './ring-segment.ts';

/** `live`: sealed, oldest first. The last segment whose extents were left to `older`; 0: none was. */
export async function loadHead(
  head: ExtentMap,
  live: readonly RingSegment[],
  older: OlderExtents | null,
  bytesMax: number,
): Promise<number> {
  // Counted as if none lay over another.
  let bytes = 0;
  let fitting = live.length;
  while (fitting > 0) {
    bytes += live[fitting - 1]!.extentCount * limits.headExtentBytes;
    if (bytes > bytesMax) break;
    fitting -= 1;
  }
  const left = older === null || fitting === 0 ? 0 : await older.cover(live.slice(0, fitting));
  for (const { number, file } of live) {
    if (number <= left) continue;
    const footer = await readSegmentFooter(file, await readSegmentHeader(file));
    if (footer === null) throw new MidmirrorError('corrupt', `${file.path} was sealed and has no footer`);
    for (const c = footer.extents.cursor(); c.valid; c.next())
      head.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
  }
  return left;
}
