// Brings a ring back from its files alone: which segments are live, where the journal ends. What they map is loaded
// afterwards (load-head.ts).
// What was torn by the crash is cut off; what was durable once and is gone or changed is damage, and refused.
import { MidmirrorError } from '@midmirror/basis';
import {
  batchAt,
  DescriptorKind,
  decodeMark,
  decodeSegmentHeader,
  descriptorsOf,
  Format,
  type GapRecord,
  recoverSegment,
  type SegmentFooter,
} from '@midmirror/journal';
import {
  type EpochClaim,
  type PoolFile,
  type PoolFiles,
  parseSegmentName,
  readBytes,
  readSegmentFooter,
} from '@midmirror/pool';
import type { JournalEnd } from './journal.ts';
import { limits } from './limits.ts';
import { RingSegment } from './ring-segment.ts';
import { sealSegment } from './seal.ts';

export interface RecoveredMark {
  seq: number;
  timeNs: bigint;
  name: string;
  kind: string;
}

/** Where a gap was opened, or closed. */
export type RecoveredGap = GapRecord & { seq: number; timeNs: bigint };

export interface RecoveredRing {
  /** Oldest first, all of them sealed. */
  live: RingSegment[];
  /** Names of segment files that hold nothing live. */
  free: string[];
  nextNumber: number;
  /** Largest epoch seen in any file. */
  lastEpoch: number;
  end: JournalEnd;
  /** Marks, and ends of gaps, of the segments that had not been sealed. */
  marks: RecoveredMark[];
  gaps: RecoveredGap[];
}

/** What the base holds. */
export interface JournalFloor {
  /** Every write up to it is in the base. */
  seq: number;
  timeNs: bigint;
  /** The oldest segments may be gone because what was live in them was written again (a clone's ring). */
  anyFirst: boolean;
}

const COPY = '.copy';

/** Without extents and batches: a window may have millions of them. */
type FooterSummary = Omit<SegmentFooter, 'extents' | 'batches'> & { extentCount: number };

interface Candidate {
  name: string;
  segment: number;
  epoch: number;
  file: PoolFile;
  footer: FooterSummary | null;
}

/**
 * Every write up to the floor is in the base (the MIM), so segments that end at or before it are free. Seals what was
 * not. A writer that was displaced and may still be alive keeps its files for itself: what is not sealed is copied,
 * what is free removed. Throws `corrupt` on damage.
 */
export async function recoverRing(
  files: PoolFiles,
  directory: string,
  volume: { volumeId: string; segmentBytes: number },
  floor: JournalFloor,
  claim: EpochClaim,
): Promise<RecoveredRing> {
  const free: string[] = [];
  const setFree = async (name: string, epoch: number): Promise<void> => {
    if (claim.mayWake(epoch)) await files.unlink(`${directory}/${name}`);
    else free.push(name);
  };
  const letGo = async ({ file, name, epoch }: Candidate): Promise<void> => {
    await file.close();
    await setFree(name, epoch);
  };
  const candidates: Candidate[] = [];
  let nextNumber = 1;
  let lastEpoch = 0;
  for (const name of await files.list(directory)) {
    if (name.endsWith(COPY)) await files.unlink(`${directory}/${name}`);
    const place = parseSegmentName(name);
    if (place === null) continue;
    if (claim.isLate(place.epoch, place.segment)) {
      await files.unlink(`${directory}/${name}`);
      continue;
    }
    nextNumber = Math.max(nextNumber, place.segment + 1);
    lastEpoch = Math.max(lastEpoch, place.epoch);
    const candidate = await openCandidate(files, directory, name, place, volume);
    if (candidate === 'unused') await setFree(name, place.epoch);
    else if (candidate === 'unfinished') await files.unlink(`${directory}/${name}`);
    else candidates.push(candidate);
  }
  candidates.sort((a, b) => a.segment - b.segment);
  const live: RingSegment[] = [];
  const told: Told = { marks: [], gaps: [] };
  let end: JournalEnd | null = null;
  for (const candidate of candidates) {
    const footer = candidate.footer;
    if (footer !== null && footer.lastSeq <= floor.seq) {
      await letGo(candidate);
      if (footer.lastSeq >= (end?.nextSeq ?? 0) - 1) end = endOf(footer);
      continue;
    }
    // What ended at or before the floor says nothing of what follows: the file between may be reused already.
    const before: JournalEnd | null = end !== null && end.nextSeq > floor.seq + 1 ? end : null;
    if (!floor.anyFirst || before !== null) checkNoGap(candidate, footer, before, floor.seq);
    if (footer !== null) {
      // A process that died may have left the footer in the page cache only.
      await candidate.file.datasync();
      live.push(sealedSegment(candidate, footer));
      end = endOf(footer);
      continue;
    }
    const asleep = claim.mayWake(candidate.epoch);
    const ours = async (end: number): Promise<PoolFile> =>
      asleep ? await copyAside(files, directory, candidate, end) : candidate.file;
    const recovered = await recoverUnsealed(candidate, before, floor, told, ours);
    if (recovered === null) {
      if (!asleep) await blank(candidate);
      await letGo(candidate);
      continue;
    }
    await sealSegment(recovered, volume.segmentBytes);
    if (recovered.lastSeq <= floor.seq) {
      await letGo(candidate);
      continue;
    }
    live.push(recovered);
    end = {
      nextSeq: recovered.lastSeq + 1,
      lastNs: recovered.lastNs,
      lastHeaderCrc: recovered.lastHeaderCrc,
    };
  }
  end ??= { nextSeq: floor.seq + 1, lastNs: floor.timeNs, lastHeaderCrc: 0 };
  if (end.nextSeq <= floor.seq) end = { ...end, nextSeq: floor.seq + 1 };
  if (end.lastNs < floor.timeNs) end = { ...end, lastNs: floor.timeNs };
  return { live, free, nextNumber, lastEpoch, end, ...told };
}

/** `unused`: prepared and never written, or recycled and not ready again. `unfinished`: a crash came while the
 *  file was made. */
async function openCandidate(
  files: PoolFiles,
  directory: string,
  name: string,
  place: { segment: number; epoch: number },
  volume: { volumeId: string; segmentBytes: number },
): Promise<Candidate | 'unused' | 'unfinished'> {
  const path = `${directory}/${name}`;
  const file = await files.open(path, 'write');
  const header = decodeSegmentHeader(await readBytes(file, 0, Format.segmentHeaderBytes));
  const first = batchAt(await readBytes(file, Format.segmentHeaderBytes, Format.batchHeaderBytes), 0);
  const rightSize = (await file.size()) === volume.segmentBytes;
  const used = first !== null && first.segment === place.segment && first.epoch === place.epoch;
  if (header === null || header.segment !== place.segment || header.epoch !== place.epoch) {
    await file.close();
    if (used) {
      throw new MidmirrorError(
        'corrupt',
        `${path}: the segment header at offset 0 is damaged, batches follow it`,
        {
          hint: 'run `mim verify` on the volume; the writes of this segment may be readable by hand',
        },
      );
    }
    return rightSize ? 'unused' : 'unfinished';
  }
  if (!rightSize && !used) {
    await file.close();
    return 'unfinished';
  }
  if (header.volumeId !== volume.volumeId) {
    await file.close();
    throw new MidmirrorError(
      'corrupt',
      `${path} belongs to volume ${header.volumeId}, not to ${volume.volumeId}`,
      {
        hint: 'move the foreign file out of the folder',
      },
    );
  }
  if (!rightSize || header.segmentBytes !== volume.segmentBytes) {
    await file.close();
    throw new MidmirrorError(
      'corrupt',
      `${path} is not ${volume.segmentBytes} bytes long, as the volume's segments are`,
    );
  }
  return { name, ...place, file, footer: summaryOf(await readSegmentFooter(file, header)) };
}

function summaryOf(footer: SegmentFooter | null): FooterSummary | null {
  if (footer === null) return null;
  const { extents, batches: _, ...rest } = footer;
  return { ...rest, extentCount: extents.size };
}

function checkNoGap(
  candidate: Candidate,
  footer: FooterSummary | null,
  before: JournalEnd | null,
  floorSeq: number,
): void {
  if (footer === null) return;
  const expected = before === null ? floorSeq + 1 : before.nextSeq;
  if (footer.firstSeq > expected) {
    throw new MidmirrorError(
      'corrupt',
      `${candidate.file.path} begins with write ${footer.firstSeq}; writes ${expected} to ${footer.firstSeq - 1} are missing from the journal`,
      { hint: 'a segment file of the folder is gone; put it back, or restore an older snapshot' },
    );
  }
}

type Told = Pick<RecoveredRing, 'marks' | 'gaps'>;

async function recoverUnsealed(
  candidate: Candidate,
  before: JournalEnd | null,
  floor: JournalFloor,
  told: Told,
  ours: (end: number) => Promise<PoolFile>,
): Promise<RingSegment | null> {
  const bytes = await readBytes(candidate.file, 0, await candidate.file.size());
  const expect = before === null ? null : { nextSeq: before.nextSeq, previousCrc: before.lastHeaderCrc };
  const found = recoverSegment(
    bytes,
    candidate,
    expect,
    floor.anyFirst ? Number.MAX_SAFE_INTEGER : floor.seq,
  );
  if (found.damage !== null) throw damaged(candidate, found.damage.offset, found.damage.reason);
  const first = found.batches[0];
  if (first === undefined) return null;
  if (before === null && !floor.anyFirst && first.batch.firstSeq > floor.seq + 1) {
    throw damaged(candidate, first.at, `writes ${floor.seq + 1} to ${first.batch.firstSeq - 1} are missing`);
  }
  const file = await ours(found.endOffset);
  const segment = new RingSegment(candidate.segment, candidate.epoch, file, found.endOffset);
  segment.firstSeq = first.batch.firstSeq;
  segment.lastSeq = found.nextSeq - 1;
  segment.firstNs = first.batch.timeNs;
  segment.lastHeaderCrc = found.lastHeaderCrc;
  for (const { at, batch } of found.batches) {
    const length = Format.batchHeaderBytes + batch.descriptorCount * Format.descriptorBytes;
    segment.log!.append(bytes.subarray(at, at + length));
    segment.batchCount += 1;
    segment.descriptorCount += batch.descriptorCount;
    segment.lastNs = batch.timeNs + BigInt(Math.max(0, batch.writeCount - 1));
    for (const d of descriptorsOf(bytes, at, batch)) {
      if (d.kind !== DescriptorKind.mark) continue;
      const at = { seq: d.seq, timeNs: batch.timeNs };
      const record = decodeMark(bytes.subarray(d.dataOffset, d.dataOffset + d.length));
      if ('gap' in record) told.gaps.push({ ...at, ...record });
      else told.marks.push({ ...at, ...record });
    }
  }
  return segment;
}

function damaged(candidate: Candidate, offset: number, reason: string): MidmirrorError {
  return new MidmirrorError('corrupt', `${candidate.file.path}: damaged at offset ${offset}: ${reason}`, {
    hint: 'writes that had been flushed follow the damage, so nothing was cut off; snapshots and the MIM are untouched',
  });
}

/**
 * Nothing whole is in it, but the headers of torn batches may be: a reader that follows headers would take writes
 * that were never made for ones whose numbers were given again. The batch goes first: without its header, and
 * with a batch, a segment looks damaged.
 */
async function blank(candidate: Candidate): Promise<void> {
  for (const at of [Format.segmentHeaderBytes, 0]) {
    await candidate.file.writev([new Uint8Array(Format.segmentHeaderBytes)], at);
    await candidate.file.datasync();
  }
}

/** What is whole, up to `end`, in a file that only we have open, under the same name: whoever wakes up writes behind it. */
async function copyAside(
  files: PoolFiles,
  directory: string,
  candidate: Candidate,
  end: number,
): Promise<PoolFile> {
  const path = `${directory}/${candidate.name}`;
  const copy = await files.open(`${path}${COPY}`, 'create');
  try {
    await copy.allocate(await candidate.file.size());
    for (let at = 0; at < end; at += limits.copySliceBytes)
      await copy.writev([await readBytes(candidate.file, at, Math.min(limits.copySliceBytes, end - at))], at);
    await copy.datasync();
  } finally {
    await copy.close();
  }
  await files.rename(`${path}${COPY}`, path);
  await files.syncDirectory(directory);
  await candidate.file.close();
  candidate.file = await files.open(path, 'write');
  return candidate.file;
}

function sealedSegment(candidate: Candidate, footer: FooterSummary): RingSegment {
  const segment = new RingSegment(candidate.segment, candidate.epoch, candidate.file, footer.endOffset);
  segment.firstSeq = footer.firstSeq;
  segment.lastSeq = footer.lastSeq;
  segment.firstNs = footer.firstNs;
  segment.lastNs = footer.lastNs;
  segment.lastHeaderCrc = footer.lastHeaderCrc;
  segment.sealed = true;
  segment.log = null;
  segment.extentCount = footer.extentCount;
  return segment;
}

function endOf(footer: FooterSummary): JournalEnd {
  return { nextSeq: footer.lastSeq + 1, lastNs: footer.lastNs, lastHeaderCrc: footer.lastHeaderCrc };
}
