// The two copies of a sync: from the MIM into a backward object, and from the journal onto the MIM.
import { isZero } from '@midmirror/basis';
import type { ExtentMap } from '@midmirror/extent-map';
import { ExtentFlag } from '@midmirror/extent-map';
import { PIECE_BYTES_MAX } from '@midmirror/journal';
import type { MimWriter, ObjectWriter, PieceReader } from '@midmirror/pool';

const READ_BYTES = 1 << 20;
/** Lengths of extents are 32-bit numbers. */
const HOLE_BYTES_MAX = 2 ** 31;
const WRITE_BYTES = 1 << 20;
/** Cached pieces read without a hop before the loop serves others. */
const SLICE_PIECES = 64;

/** Saves what the MIM holds in `ranges` (start, length, start, length, …). Holes and zeroes cost no data. */
export async function saveRanges(
  mim: MimWriter,
  ranges: readonly number[],
  writer: () => Promise<ObjectWriter>,
): Promise<void> {
  // One buffer for all: memory that comes and goes outside of the heap makes the collector run all the time.
  const buffer = new Uint8Array(READ_BYTES);
  for (let i = 0; i < ranges.length; i += 2) {
    const end = ranges[i]! + ranges[i + 1]!;
    for (let at = ranges[i]!; at < end; ) {
      const object = await writer();
      const { lengthBytes, hole } = mim.allocation.span(at, Math.min(end - at, HOLE_BYTES_MAX));
      const length = hole ? lengthBytes : Math.min(lengthBytes, READ_BYTES);
      if (hole) object.zero(at, length);
      else {
        const bytes = buffer.subarray(0, length);
        await mim.read(bytes, 0, length, at);
        // Of a granule that holds data most may never have been written.
        if (isZero(bytes)) object.zero(at, length);
        else await object.data(at, bytes);
      }
      at += length;
    }
  }
}

/** Writes the movelist to the MIM; durable when it resolves. Repeating it does no harm. */
export async function applyMoves(mim: MimWriter, moves: ExtentMap, pieces: PieceReader): Promise<void> {
  const data: number[] = [];
  for (const c = moves.cursor(); c.valid; c.next())
    if ((c.flags & ExtentFlag.zero) === 0) data.push(c.start, c.length);
  // Marked before the first byte is written: what a mark misses would read as a hole.
  await mim.mark(data);
  const pending = new Uint8Array(WRITE_BYTES + PIECE_BYTES_MAX);
  let pendingStart = 0;
  let pendingBytes = 0;
  let slice = 0;
  let zeroStart = 0;
  let zeroEnd = 0;
  const zero = async (): Promise<void> => {
    if (zeroEnd > zeroStart) await mim.zero(zeroStart, zeroEnd - zeroStart);
    zeroStart = zeroEnd;
  };
  const drain = async (): Promise<void> => {
    if (pendingBytes > 0) await mim.write([pending.subarray(0, pendingBytes)], pendingStart);
    pendingBytes = 0;
  };
  for (const c = moves.cursor(); c.valid; c.next()) {
    const { start, length, flags, source, offset, crc } = c;
    if (flags & ExtentFlag.zero) {
      // Neighbours together: a long run of them is given back to the file system.
      if (start !== zeroEnd) {
        await zero();
        zeroStart = start;
      }
      zeroEnd = start + length;
      continue;
    }
    if (pendingBytes > 0 && (pendingStart + pendingBytes !== start || pendingBytes >= WRITE_BYTES))
      await drain();
    if (!pieces.tryRead(flags, source, offset, length, crc, pending, pendingBytes)) {
      await pieces.read({ flags, source, offset, length, crc }, 0, length, pending, pendingBytes);
    }
    if (pendingBytes === 0) pendingStart = start;
    pendingBytes += length;
    slice += 1;
    if (slice % SLICE_PIECES === 0) await new Promise<void>((resolve) => setImmediate(resolve));
  }
  await drain();
  await zero();
  await mim.sync();
}
