// When a write of the journal was made: from the descriptors of its segment that are in memory, else from its footer.
import { packedBatches, type SegmentBatch } from '@midmirror/journal';
import type { RingSegment } from '@midmirror/live-disk';
import { SegmentReader } from '@midmirror/pool';

/** Null: no segment has it any more. */
export async function timeOfWrite(segments: readonly RingSegment[], seq: number): Promise<bigint | null> {
  const segment = segments.findLast(({ firstSeq, lastSeq }) => firstSeq <= seq && seq <= lastSeq);
  if (segment === undefined) return null;
  for (const { firstSeq, timeNs, writeCount } of await batchesOf(segment))
    if (firstSeq <= seq && seq < firstSeq + writeCount) return timeNs + BigInt(seq - firstSeq);
  return null;
}

async function batchesOf({
  log,
  file,
}: RingSegment): Promise<Pick<SegmentBatch, 'firstSeq' | 'timeNs' | 'writeCount'>[]> {
  if (log !== null) return [...packedBatches(log.bytes(0, log.length))].map(({ batch }) => batch);
  return (await (await SegmentReader.open(file)).footer())?.batches ?? [];
}
