// The two copies of a sync: from the MIM into a backward object, and from the journal onto the MIM.
import type { ExtentMap } from '@midmirror/extent-map';
import { ExtentFlag } from '@midmirror/extent-map';
import type { ObjectHeader } from '@midmirror/journal';
import { type MimWriter, ObjectWriter, type PieceReader, type PoolFiles } from '@midmirror/pool';

const READ_BYTES = 1 << 20;
const OBJECT_BYTES_MAX = 1 << 30;
const WRITE_BYTES = 1 << 20;
/** Cached pieces read without a hop before the loop serves others. */
const SLICE_PIECES = 64;

export interface SavedObject {
  object: number;
  extents: ExtentMap;
  dataBytes: number;
}

/** Saves what the MIM holds in `ranges` into one or more objects, durable when it resolves. Holes cost no data. */
export async function saveRanges(
  files: PoolFiles,
  directory: string,
  mim: MimWriter,
  ranges: readonly number[],
  headerOf: (part: number) => ObjectHeader,
): Promise<SavedObject[]> {
  const saved: SavedObject[] = [];
  let writer = await ObjectWriter.create(files, directory, headerOf(0));
  const finish = async (lastPart: boolean): Promise<void> => {
    await writer.finish(lastPart);
    saved.push({ object: writer.header.object, extents: writer.extents, dataBytes: writer.dataBytes });
  };
  try {
    for (let i = 0; i < ranges.length; i += 2) {
      const end = ranges[i]! + ranges[i + 1]!;
      for (let at = ranges[i]!; at < end; ) {
        if (writer.dataBytes >= OBJECT_BYTES_MAX) {
          await finish(false);
          writer = await ObjectWriter.create(files, directory, headerOf(saved.length));
        }
        const { lengthBytes, hole } = mim.allocation.span(at, Math.min(end - at, holeBytes(end - at)));
        const length = hole ? lengthBytes : Math.min(lengthBytes, READ_BYTES);
        if (hole) writer.zero(at, length);
        else {
          const bytes = new Uint8Array(length);
          await mim.read(bytes, 0, length, at);
          await writer.data(at, bytes);
        }
        at += length;
      }
    }
    await finish(true);
    return saved;
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

/** A hole's extent is at most this long: lengths are 32-bit numbers. */
function holeBytes(length: number): number {
  return Math.min(length, 2 ** 31);
}

/** Writes the movelist to the MIM; durable when it resolves. Repeating it does no harm. */
export async function applyMoves(mim: MimWriter, moves: ExtentMap, pieces: PieceReader): Promise<void> {
  const data: number[] = [];
  for (const c = moves.cursor(); c.valid; c.next())
    if ((c.flags & ExtentFlag.zero) === 0) data.push(c.start, c.length);
  // Marked before the first byte is written: what a mark misses would read as a hole.
  await mim.mark(data);
  let pending: Uint8Array[] = [];
  let pendingStart = 0;
  let pendingBytes = 0;
  let slice = 0;
  const drain = async (): Promise<void> => {
    if (pendingBytes > 0) await mim.write(pending, pendingStart);
    pending = [];
    pendingBytes = 0;
  };
  for (const c = moves.cursor(); c.valid; c.next()) {
    const { start, length, flags, source, offset, crc } = c;
    if (flags & ExtentFlag.zero) {
      await drain();
      await mim.zero(start, length);
      continue;
    }
    if (pendingBytes > 0 && (pendingStart + pendingBytes !== start || pendingBytes >= WRITE_BYTES))
      await drain();
    const bytes = new Uint8Array(length);
    if (!pieces.tryRead(flags, source, offset, length, crc, bytes, 0)) {
      await pieces.read({ flags, source, offset, length, crc }, 0, length, bytes, 0);
    }
    if (pendingBytes === 0) pendingStart = start;
    pending.push(bytes);
    pendingBytes += length;
    slice += 1;
    if (slice % SLICE_PIECES === 0) await new Promise<void>((resolve) => setImmediate(resolve));
  }
  await drain();
  await mim.sync();
}
