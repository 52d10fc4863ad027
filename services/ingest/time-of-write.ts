// When a write was made: from the descriptors of its segment that are in memory, else from its footer; when it has left
// the journal, from the MIM's point.
import { type CatalogReader, fromNs, volumeById } from '@midmirror/catalog';
import { packedBatches, type SegmentBatch } from '@midmirror/journal';
import type { RingSegment } from '@midmirror/live-disk';
import { SegmentReader } from '@midmirror/pool';

/** 0: it is older than the MIM's point. */
export async function timeOfWrite(
  segments: readonly RingSegment[],
  db: CatalogReader,
  volumeId: string,
  seq: number,
): Promise<bigint> {
  const found = await timeInJournal(segments, seq);
  if (found !== null) return found;
  const { mim_seq, mim_ns } = await volumeById(db, volumeId);
  return mim_seq === seq ? fromNs(mim_ns) : 0n;
}

async function timeInJournal(segments: readonly RingSegment[], seq: number): Promise<bigint | null> {
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
