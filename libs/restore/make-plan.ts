// What has to be moved: all data when the target is new, what has changed when it is known which point it holds, else
// what differs by comparing. Nothing is written here.
import { MidmirrorError } from '@midmirror/basis';
import { sameAt } from './core/differing.ts';
import { RangeList } from './core/range-list.ts';
import { compareChunk, type Digests } from './edges/compare.ts';
import type { Source } from './edges/mirror-source.ts';
import type { Target } from './edges/target.ts';
import { limits } from './limits.ts';

/** A point that the target is known to hold, byte by byte: its owner keeps track, or a person says so. */
export interface KnownBase {
  seq: number;
}

/** `reading`: of a source that comes as a stream, how much of it. */
export type Report = (
  phase: 'comparing' | 'moving' | 'reading',
  bytesDone: number,
  bytesTotal: number,
) => void;

function newList(source: Source, alignBytes: number): RangeList {
  return new RangeList({ rangesMax: limits.rangesMax, alignBytes, sizeBytes: source.sizeBytes });
}

/** For a target that is all zeroes: what the point has in it. */
export async function planNew(source: Source, alignBytes: number): Promise<RangeList> {
  const ranges = newList(source, alignBytes);
  let at = 0;
  for await (const { lengthBytes, zeroes } of source.status(0, source.sizeBytes)) {
    if (!zeroes) ranges.add(at, lengthBytes, false);
    at += lengthBytes;
  }
  return ranges;
}

/** For a target that holds the point which `source` was opened with as `changedSince`. */
export async function planKnown(source: Source, alignBytes: number): Promise<RangeList> {
  const ranges = newList(source, alignBytes);
  let at = 0;
  for await (const { lengthBytes, zeroes, differs } of source.status(0, source.sizeBytes)) {
    if (differs) ranges.add(at, lengthBytes, zeroes);
    at += lengthBytes;
  }
  return ranges;
}

export interface ComparedPlan {
  ranges: RangeList;
  /** Read from the mirror for comparing, because it gives no digests. */
  readBytes: number;
}

export async function planByComparing(
  source: Source,
  target: Target,
  digests: Digests,
  report: Report,
): Promise<ComparedPlan> {
  const ranges = newList(source, target.blockBytes);
  const { sizeBytes } = source;
  let readBytes = 0;
  const ahead: { endBytes: number; compared: ReturnType<typeof compareChunk> }[] = [];
  for (let at = 0; at < sizeBytes || ahead.length > 0; ) {
    if (at < sizeBytes && ahead.length < limits.compareChunksMax) {
      const length = Math.min(limits.compareChunkBytes, sizeBytes - at);
      const compared = compareChunk(source, target, digests, at, length);
      compared.catch(() => {}); // the one that is waited for tells
      at += length;
      ahead.push({ endBytes: at, compared });
      continue;
    }
    const { endBytes, compared } = ahead.shift()!;
    const chunk = await compared;
    readBytes += chunk.readBytes;
    for (const range of chunk.differing) ranges.add(range.startBytes, range.lengthBytes, range.zeroes);
    report('comparing', endBytes, sizeBytes);
  }
  return { ranges, readBytes };
}

/** Throws `conflict` when a block that has not changed since the base differs in the target. */
export async function checkBase(source: Source, target: Target, ranges: RangeList): Promise<void> {
  const differs = async (at: number): Promise<boolean> => {
    const length = Math.min(limits.spotCheckBytes, source.sizeBytes - at);
    const [ours, theirs] = [new Uint8Array(length), new Uint8Array(length)];
    await Promise.all([target.read(at, length, ours), source.read(at, length, theirs)]);
    return !sameAt(ours, theirs, 0, length);
  };
  const places = [...unchangedBlocks(ranges, source.sizeBytes)];
  const wrong = (await Promise.all(places.map(differs))).indexOf(true);
  if (wrong === -1) return;
  const at = places[wrong]!;
  throw new MidmirrorError(
    'conflict',
    `${target.name} does not hold the base: it differs in ${limits.spotCheckBytes} bytes at ${at}`,
    {
      hint: 'leave --base away: the whole target is compared then',
    },
  );
}

/** Spread over what lies between the ranges. */
function* unchangedBlocks(ranges: RangeList, sizeBytes: number): Generator<number> {
  const block = limits.spotCheckBytes;
  const stride = Math.max(block, Math.floor(sizeBytes / limits.spotChecks / block) * block);
  let candidate = 0;
  let gapStart = 0;
  for (const { startBytes, lengthBytes } of [...ranges, { startBytes: sizeBytes, lengthBytes: 0 }]) {
    while (candidate < startBytes) {
      const at = Math.max(candidate, Math.ceil(gapStart / block) * block);
      if (at + block > startBytes) break;
      yield at;
      candidate = Math.floor(at / stride) * stride + stride;
    }
    gapStart = startBytes + lengthBytes;
  }
}

/** Bytes per second at which the mirror gives what is to be moved. Null: there is nothing to read. */
export async function probeRate(source: Source, ranges: RangeList): Promise<number | null> {
  const pieces: { startBytes: number; lengthBytes: number }[] = [];
  let bytes = 0;
  for (const { startBytes, lengthBytes, zeroes } of ranges) {
    if (zeroes) continue;
    const length = Math.min(lengthBytes, limits.pieceBytesMax);
    pieces.push({ startBytes, lengthBytes: length });
    bytes += length;
    if (bytes >= limits.probeBytesMax || pieces.length === limits.piecesInFlightMax) break;
  }
  if (bytes === 0) return null;
  const began = performance.now();
  await Promise.all(
    pieces.map((piece) =>
      source.read(piece.startBytes, piece.lengthBytes, new Uint8Array(piece.lengthBytes)),
    ),
  );
  return (bytes * 1000) / Math.max(1, performance.now() - began);
}
