// Where does the journal end? Walks the batches of an unsealed segment, in memory, and stops at the first
// that is not whole. Tells a torn end (power went while it was written) from damage in the middle: a later
// batch of the same segment that says "this was already durable" proves damage, which is never cut off in
// silence (I1, I8).
import { type Batch, batchAt, descriptorsIntact, descriptorsOf } from './batch.ts';
import { checksumOf } from './checksum.ts';
import { Format, pageAfter } from './format.ts';

export interface Recovered {
  batches: { at: number; batch: Batch }[];
  /** Where the next batch goes. */
  endOffset: number;
  /** Seq to give to the next write. */
  nextSeq: number;
  lastHeaderCrc: number;
  /** Set when what follows the end was durable once: the journal is damaged there. */
  damage: { offset: number; reason: string } | null;
}

/**
 * `segment` holds the whole file. `expect` is how the journal ended before this segment; null when unknown
 * (the first segment of the ring), then the first batch decides, and what must not be lost begins after
 * `floorSeq`.
 */
export function recoverSegment(
  segment: Uint8Array,
  place: { segment: number; epoch: number },
  expect: { nextSeq: number; previousCrc: number } | null,
  floorSeq: number,
): Recovered {
  const batches: Recovered['batches'] = [];
  let at: number = Format.segmentHeaderBytes;
  let nextSeq = expect?.nextSeq ?? -1;
  let previousCrc = expect?.previousCrc ?? -1;
  let reason = '';
  for (;;) {
    const batch = nextBatch(segment, at, place);
    if (batch === null) {
      reason = 'no batch header of this segment';
      break;
    }
    if (nextSeq >= 0 && batch.firstSeq !== nextSeq) {
      reason = `write ${nextSeq} was to follow, write ${batch.firstSeq} does`;
      break;
    }
    if (previousCrc >= 0 && batch.previousCrc !== previousCrc) {
      reason = 'the chain of headers breaks';
      break;
    }
    const bad = firstBadPart(segment, batch.offset, batch);
    if (bad !== null) {
      reason = bad;
      break;
    }
    batches.push({ at: batch.offset, batch });
    nextSeq = batch.firstSeq + batch.writeCount;
    previousCrc = batch.headerCrc;
    at = batch.offset + batch.totalBytes;
  }
  const lostSeq = nextSeq < 0 ? floorSeq + 1 : nextSeq;
  const damaged = laterBatchClaimsDurable(segment, at, place, lostSeq);
  return {
    batches,
    endOffset: at,
    nextSeq,
    lastHeaderCrc: previousCrc,
    damage: damaged ? { offset: at, reason } : null,
  };
}

/** A batch follows the one before at once, or begins at the next page. */
function nextBatch(segment: Uint8Array, at: number, place: { segment: number; epoch: number }): Batch | null {
  for (const offset of [at, pageAfter(at)]) {
    const batch = batchAt(segment, offset);
    if (batch?.segment === place.segment && batch.epoch === place.epoch && batch.offset === offset)
      return batch;
  }
  return null;
}

function firstBadPart(segment: Uint8Array, at: number, batch: Batch): string | null {
  if (at + batch.totalBytes > segment.length) return 'the batch reaches over the end of the file';
  if (!descriptorsIntact(segment, at, batch)) return 'checksum of the descriptors';
  for (const descriptor of descriptorsOf(segment, at, batch)) {
    if (descriptor.kind === 2 || descriptor.kind === 3) continue;
    if (descriptor.dataOffset + descriptor.length > segment.length) return 'data over the end of the file';
    if (checksumOf(segment, descriptor.dataOffset, descriptor.length) !== descriptor.crc) {
      return `checksum of the data of write ${descriptor.seq}`;
    }
  }
  return null;
}

function laterBatchClaimsDurable(
  segment: Uint8Array,
  from: number,
  place: { segment: number; epoch: number },
  lostSeq: number,
): boolean {
  // Guests' data could hold bytes that look like a header, even a copied one: `offset` must be its own place.
  const magic = Buffer.from(new Uint32Array([Format.batchMagic]).buffer);
  const bytes = Buffer.from(segment.buffer, segment.byteOffset, segment.length);
  for (let at = bytes.indexOf(magic, from); at >= 0; at = bytes.indexOf(magic, at + 1)) {
    const batch = batchAt(segment, at);
    if (batch === null || batch.segment !== place.segment || batch.epoch !== place.epoch) continue;
    if (batch.offset === at && batch.durableSeq >= lostSeq) return true;
  }
  return false;
}
