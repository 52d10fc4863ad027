// Closes a segment: net extents and batch index computed from its descriptors, footer and trailer written,
// all of it durable. In slices, so that guests' writes are not held up.
import { MidmirrorError } from '@midmirror/basis';
import { ExtentMap } from '@midmirror/extent-map';
import {
  descriptorsOf,
  encodeSegmentFooter,
  Format,
  packedBatches,
  putDescriptor,
  type SegmentBatch,
  segmentTrailer,
} from '@midmirror/journal';
import type { RingSegment } from './ring-segment.ts';

const SLICE_DESCRIPTORS = 1000;

export async function sealSegment(segment: RingSegment, segmentBytes: number): Promise<void> {
  const { extents, batches } = await netExtents(segment);
  const footer = encodeSegmentFooter({
    segment: segment.number,
    epoch: segment.epoch,
    firstSeq: segment.firstSeq,
    lastSeq: segment.lastSeq,
    firstNs: segment.firstNs,
    lastNs: segment.lastNs,
    endOffset: segment.writeOffset,
    lastHeaderCrc: segment.lastHeaderCrc,
    extents,
    batches,
  });
  const footerOffset = Math.ceil(segment.writeOffset / 8) * 8;
  const trailerOffset = segmentBytes - Format.trailerBytes;
  if (footerOffset + footer.length > trailerOffset) {
    throw new MidmirrorError('io', `${segment.file.path}: the footer of ${footer.length} bytes does not fit`);
  }
  await segment.file.writev([footer], footerOffset);
  // Footer before trailer: a trailer on stable storage always has its footer.
  await segment.file.datasync();
  const trailer = segmentTrailer(segment.number, segment.epoch, footerOffset, footer);
  await segment.file.writev([trailer], trailerOffset);
  await segment.file.datasync();
  segment.extentCount = extents.size;
  segment.sealed = true;
}

async function netExtents(segment: RingSegment): Promise<{ extents: ExtentMap; batches: SegmentBatch[] }> {
  const extents = new ExtentMap();
  const batches: SegmentBatch[] = [];
  const log = segment.log;
  if (log === null) throw new MidmirrorError('io', `${segment.file.path} was sealed before`);
  const bytes = log.bytes(0, log.length);
  let sliced = 0;
  for (const { at, batch } of packedBatches(bytes)) {
    batches.push({
      offset: batch.offset,
      firstSeq: batch.firstSeq,
      timeNs: batch.timeNs,
      writeCount: batch.writeCount,
    });
    for (const d of descriptorsOf(bytes, at, batch)) putDescriptor(extents, d, segment.number);
    sliced += batch.descriptorCount;
    if (sliced >= SLICE_DESCRIPTORS) {
      sliced = 0;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }
  return { extents, batches };
}
