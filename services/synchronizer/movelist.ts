// The movelist of a sync: the net change of the journal between two points [0047], and the backward movelist:
// those of its ranges that are still on the MIM for the open snapshot, to be saved first [0065].
import { ExtentMap } from '@midmirror/extent-map';
import { descriptorsOf, putDescriptor } from '@midmirror/journal';
import {
  type PieceReader,
  parseSegmentName,
  type PoolFiles,
  readSegmentFooter,
  readSegmentHeader,
  type VolumePaths,
} from '@midmirror/pool';
import { MidmirrorError } from '@midmirror/basis';

/** Net change of the writes in `(afterSeq, toSeq]`, and the time of its first and last write. */
export async function forwardMovelist(
  files: PoolFiles,
  paths: VolumePaths,
  pieces: PieceReader,
  afterSeq: number,
  toSeq: number,
): Promise<{ moves: ExtentMap; firstNs: bigint; lastNs: bigint }> {
  const moves = new ExtentMap();
  let firstNs = 0n;
  let lastNs = 0n;
  let covered = afterSeq;
  for (const segment of await segmentNumbers(files, paths)) {
    if (covered >= toSeq) break;
    const reader = await pieces.segment(segment);
    for await (const { batch, bytes } of reader.batches(afterSeq, toSeq)) {
      const lastSeq = batch.firstSeq + batch.writeCount - 1;
      if (batch.writeCount === 0 || lastSeq <= covered) continue;
      if (batch.firstSeq > covered + 1) break;
      for (const d of descriptorsOf(bytes, 0, batch)) {
        if (d.seq <= afterSeq || d.seq > toSeq) continue;
        putDescriptor(moves, d, segment);
        const timeNs = batch.timeNs + BigInt(d.seq - batch.firstSeq);
        if (firstNs === 0n) firstNs = timeNs;
        lastNs = timeNs;
      }
      covered = Math.min(lastSeq, toSeq);
    }
  }
  if (covered < toSeq) {
    throw new MidmirrorError('corrupt', `writes ${covered + 1} to ${toSeq} are not in ${paths.forward}`, {
      hint: 'run `mim verify` on the volume',
    });
  }
  return { moves, firstNs, lastNs };
}

/** Segment files in the order of the journal; files that hold nothing of it are passed by. */
async function segmentNumbers(files: PoolFiles, paths: VolumePaths): Promise<number[]> {
  const numbers: number[] = [];
  for (const name of await files.list(paths.forward)) {
    const place = parseSegmentName(name);
    if (place === null) continue;
    const file = await files.open(`${paths.forward}/${name}`, 'read');
    try {
      const header = await readSegmentHeader(file).catch(() => null);
      if (header?.segment !== place.segment) continue;
      // Damage of a footer shows here, before anything is moved.
      await readSegmentFooter(file, header);
      numbers.push(place.segment);
    } finally {
      await file.close();
    }
  }
  return numbers.sort((a, b) => a - b);
}

/** Ranges of `moves` (start, length, …) that the open snapshot has not saved yet. */
export function backwardRanges(moves: ExtentMap, saved: ExtentMap): number[] {
  const ranges: number[] = [];
  const add = (start: number, end: number): void => {
    const last = ranges.length - 2;
    if (last >= 0 && ranges[last]! + ranges[last + 1]! === start) ranges[last + 1]! += end - start;
    else ranges.push(start, end - start);
  };
  for (const move = moves.cursor(); move.valid; move.next()) {
    let at = move.start;
    const end = move.end;
    for (const c = saved.cursor(at); c.valid && c.start < end && at < end; c.next()) {
      if (c.start > at) add(at, c.start);
      at = Math.max(at, c.end);
    }
    if (at < end) add(at, end);
  }
  return ranges;
}
