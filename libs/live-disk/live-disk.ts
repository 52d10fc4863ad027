// A disk that journals every write: forward journal in front, head map over it, a base underneath (the MIM of a
// volume, the mirror of a clone). Reads take the newest journaled extent, else the base. One road for both. Extents
// of the oldest segments may leave the head map; then they are asked for between the two.
import { type Clock, assert, MidmirrorError, Turns } from '@midmirror/basis';
import {
  type AllocationExtent,
  type BlockDevice,
  Errno,
  readPacer,
  type WriteCommand,
} from '@midmirror/block-device';
import { type ExtentCursor, ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import {
  checksumOf,
  DescriptorKind,
  type GapRecord,
  type MarkRecord,
  segmentFooterBytesMax,
} from '@midmirror/journal';
import { type EpochClaim, type PoolFiles, readBytes, verifyPiece } from '@midmirror/pool';
import type { BatchWatch } from './batch-watch.ts';
import { Journal } from './journal.ts';
import type { JournalListener } from './journal-listener.ts';
import { limits } from './limits.ts';
import { loadHead } from './load-head.ts';
import type { OlderExtents } from './older-extents.ts';
import { type JournalFloor, type RecoveredGap, type RecoveredMark, recoverRing } from './recover-ring.ts';
import type { RingSegment } from './ring-segment.ts';
import { SegmentReaders } from './segment-readers.ts';
import { SegmentRing } from './segment-ring.ts';

/** What lies under the journal. */
export interface BaseImage {
  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean;
  read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void>;
  /** Length, at most `length`, over which the base is or is not a hole. */
  span(start: number, length: number): Promise<AllocationExtent> | AllocationExtent;
}

export interface LiveDiskOptions {
  files: PoolFiles;
  /** The folder of the segment files; exists. */
  directory: string;
  volumeId: string;
  sizeBytes: number;
  segmentBytes: number;
  segmentsMax: number;
  requestBytesMax: number;
  syncIntervalMs: number;
  clock: Clock;
  floor: JournalFloor;
  base: BaseImage;
  /** Finds what has left the head map; null: nothing ever does. */
  older: OlderExtents | null;
  /** What opening loads into the head map, as far as `older` finds the rest. */
  headBytesMax: number;
  listener: JournalListener;
  /** Who may write; its epoch is raised over those that the files name. */
  claim: EpochClaim;
}

interface Piece {
  at: number;
  length: number;
  /** No extent is here: what lies below has it. */
  below: boolean;
  segment: RingSegment | null;
  /** Of the whole extent. */
  flags: number;
  offset: number;
  extentLength: number;
  crc: number;
  skip: number;
}

const NOTHING: Piece = {
  ...{ at: 0, length: 0, below: true, segment: null },
  ...{ flags: 0, offset: 0, extentLength: 0, crc: 0, skip: 0 },
};

export class LiveDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly epoch: number;
  /** Marks found in the journal's unsealed end: the catalogue may not have heard of them. */
  readonly recoveredMarks: readonly RecoveredMark[];
  readonly recoveredGaps: readonly RecoveredGap[];
  readonly #options: LiveDiskOptions;
  readonly #ring: SegmentRing;
  readonly #segmentReaders = new SegmentReaders();
  readonly #journal: Journal;
  readonly #head: ExtentMap;
  readonly #cursor;
  readonly #pacer = readPacer();
  readonly #scratch = new Uint8Array(64 << 10);
  /** Extents of segments up to this one may be in `older` alone. What is in the head map is the newest there is. */
  #evictedUpTo: number;
  /** The base holds all of the segments up to this one; what `older` finds in them counts no more. */
  #recycledUpTo: number;
  /** Whatever takes segments out of the ring or the head map: each leaves once. */
  readonly #recycling = new Turns();
  #closing = false;

  private constructor(
    options: LiveDiskOptions,
    ring: SegmentRing,
    journal: Journal,
    head: ExtentMap,
    evictedUpTo: number,
    recovered: { marks: RecoveredMark[]; gaps: RecoveredGap[] },
    epoch: number,
  ) {
    this.#options = options;
    this.sizeBytes = options.sizeBytes;
    this.#ring = ring;
    this.#journal = journal;
    this.#head = head;
    this.#cursor = head.cursor();
    this.#evictedUpTo = evictedUpTo;
    const [first] = ring.live.keys();
    this.#recycledUpTo = (first ?? 1) - 1;
    this.recoveredMarks = recovered.marks;
    this.recoveredGaps = recovered.gaps;
    this.epoch = epoch;
  }

  /** Recovers the journal from its files and opens it for writing. Throws `corrupt` on damage. */
  static async open(options: LiveDiskOptions): Promise<LiveDisk> {
    const { files, directory, volumeId, segmentBytes, segmentsMax, clock, syncIntervalMs, listener } =
      options;
    const needed =
      options.requestBytesMax + segmentFooterBytesMax(limits.batchDescriptorsMax, 4) + (64 << 10);
    assert(
      segmentBytes >= needed,
      `a segment of ${segmentBytes} bytes holds a request of ${options.requestBytesMax}`,
    );
    const head = new ExtentMap();
    const { claim } = options;
    const found = await recoverRing(files, directory, { volumeId, segmentBytes }, options.floor, claim);
    const evictedUpTo = await loadHead(head, found.live, options.older, options.headBytesMax);
    const epoch = Math.max(claim.epoch, found.lastEpoch + 1);
    await claim.begin(found.nextNumber);
    const ring = new SegmentRing(
      {
        ...{ files, directory, volumeId, epoch, segmentBytes, segmentsMax },
        oldestFirst: options.floor.anyFirst,
        mayReuse: (segment) => !claim.mayWake(segment.epoch),
      },
      found.free,
      found.nextNumber,
    );
    for (const segment of found.live) ring.live.set(segment.number, segment);
    const apply = (words: Uint32Array, count: number, segment: number): void =>
      applyBatch(head, words, count, segment);
    const journal = new Journal(ring, found.end, { clock, claim, syncIntervalMs, listener, apply });
    await journal.open();
    return new LiveDisk(options, ring, journal, head, evictedUpTo, found, epoch);
  }

  get lastSeq(): number {
    return this.#journal.lastSeq;
  }
  get lastNs(): bigint {
    return this.#journal.lastNs;
  }
  get durableSeq(): number {
    return this.#journal.durableSeq;
  }
  get durability(): { latestNs: bigint; waitingSinceNs: bigint } {
    return this.#journal.durability;
  }
  get batchWatch(): BatchWatch {
    return this.#journal.batchWatch;
  }
  get state(): { state: string; reason: string } {
    return { state: this.#journal.state, reason: this.#journal.stateReason };
  }
  /** Extents in the head map, and what they take. */
  get headExtents(): number {
    return this.#head.size;
  }
  get headBytes(): number {
    return this.#head.memoryBytes;
  }
  /** Segments whose extents have left the head map. */
  get segmentsEvicted(): number {
    return this.segments.filter(({ number }) => this.#isEvicted(number)).length;
  }
  get journalBytesUsed(): number {
    return this.#ring.bytesUsed;
  }
  get journalBytesMax(): number {
    return this.#ring.bytesMax;
  }
  /** Segments in use to segments allowed. */
  get ringShare(): number {
    return this.#ring.share;
  }
  /** Live segments in order, oldest first. */
  get segments(): RingSegment[] {
    return [...this.#ring.live.values()];
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    // Asked after the reading: what was read before another took over is what the disk held then.
    return (
      this.#pacer.tryNow(() => this.#readNow(start, length, target, targetOffset)) && this.#journal.holds()
    );
  }

  async read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    await this.#readBy(this.#head.cursor(start), true, start, length, target, targetOffset);
    if (!this.#journal.holds()) throw new MidmirrorError('unavailable', this.#journal.stateReason);
  }

  submit(command: WriteCommand): void {
    if (command.startBytes + command.lengthBytes > this.sizeBytes) command.complete(Errno.ENOSPC);
    else this.#journal.submit(command);
  }

  kick(): void {
    this.#journal.kick();
  }

  flush(): Promise<void> {
    return this.#journal.flush();
  }

  mark(record: MarkRecord | GapRecord): Promise<{ seq: number; timeNs: bigint }> {
    return this.#journal.mark(record);
  }

  async allocation(start: number, length: number, extentsMax: number): Promise<AllocationExtent[]> {
    const extents: AllocationExtent[] = [];
    const end = start + length;
    let at = start;
    const add = (lengthBytes: number, hole: boolean): void => {
      const last = extents.at(-1);
      if (last !== undefined && last.hole === hole) last.lengthBytes += lengthBytes;
      else extents.push({ lengthBytes, hole });
    };
    while (at < end && extents.length <= extentsMax) {
      const cursor = this.#head.cursor(at);
      const covered = cursor.valid && cursor.start <= at;
      const until = covered ? Math.min(cursor.end, end) : Math.min(cursor.valid ? cursor.start : end, end);
      if (covered) {
        add(until - at, (cursor.flags & ExtentFlag.zero) !== 0);
        at = until;
      } else {
        // What is written meanwhile shows from here on.
        for await (const span of this.#spansBelow(at, until - at)) {
          add(span.lengthBytes, span.hole);
          at += span.lengthBytes;
          if (extents.length > extentsMax) break;
        }
      }
    }
    return extents.length > extentsMax ? extents.slice(0, extentsMax) : extents;
  }

  /** Ends the active segment, so that a sync of everything can free it. */
  rotate(): void {
    this.#journal.rotate();
  }

  /** The base holds everything up to `seq`: sealed segments that end there leave the ring. Their numbers. */
  recycle(seq: number): Promise<number[]> {
    return this.#recycling.take(() => this.#recycle(seq));
  }

  async #recycle(seq: number): Promise<number[]> {
    if (this.#closing || !this.#journal.holds()) return [];
    const gone: RingSegment[] = [];
    for (const segment of this.#ring.live.values()) {
      if (!segment.sealed || segment.log !== null || segment.lastSeq > seq) break;
      gone.push(segment);
    }
    if (gone.length === 0) return [];
    const last = gone.at(-1)!.number;
    // All at one moment: a segment that still has readers must not show through where a newer one has gone.
    this.#recycledUpTo = last;
    this.#options.older?.drop(last);
    this.#head.removeWhere((_flags, source) => source <= last);
    for (const segment of gone) {
      await this.#ring.recycle(segment);
      this.#journal.roomAgain();
    }
    return gone.map((segment) => segment.number);
  }

  /**
   * The extents of some of the oldest segments leave the head map, as far as they are found in `older`. False: none
   * are that haven't left.
   */
  evictOldest(): Promise<boolean> {
    return this.#recycling.take(() => this.#evictOldest());
  }

  async #evictOldest(): Promise<boolean> {
    const { older } = this.#options;
    if (older === null || this.#closing) return false;
    const sealed = this.segments.filter(({ sealed, number }) => sealed && number > this.#recycledUpTo);
    const left = sealed.filter(({ number }) => this.#isEvicted(number)).length;
    const some = Math.ceil((sealed.length - left) / limits.evictedShare);
    if (some === 0) return false;
    const covered = await older.cover(sealed.slice(0, left + some));
    if (covered <= this.#evictedUpTo) return false;
    this.#evictedUpTo = covered;
    this.#head.removeWhere((_flags, source) => source <= covered);
    return true;
  }

  #isEvicted(segment: number): boolean {
    return segment <= this.#evictedUpTo && segment > this.#recycledUpTo;
  }

  /** Whether what the head map lacks may lie in segments. */
  get #hasEvicted(): boolean {
    return this.#evictedUpTo > this.#recycledUpTo;
  }

  /** Bytes of the disk that the journal covers. Linear in the extents. */
  get liveBytes(): number {
    return this.#head.coveredBytes;
  }

  /**
   * Writes up to `bytesMax` of what is live in the oldest segment again at the journal's end; when nothing is
   * left in it, frees it. No write of a guest may be under way. False: there is no such segment.
   */
  compactOldest(bytesMax: number): Promise<boolean> {
    return this.#recycling.take(() => this.#compactOldest(bytesMax));
  }

  async #compactOldest(bytesMax: number): Promise<boolean> {
    if (this.#closing) return false;
    assert(this.#options.older === null, 'what has left the head map is not seen here');
    const oldest = this.segments[0];
    if (oldest === undefined || !oldest.sealed || oldest.log !== null) return false;
    const live: { start: number; length: number; zero: boolean }[] = [];
    let bytes = 0;
    for (const c = this.#head.cursor(); c.valid && bytes < bytesMax; c.next()) {
      if (c.source !== oldest.number) continue;
      live.push({ start: c.start, length: c.length, zero: (c.flags & ExtentFlag.zero) !== 0 });
      bytes += c.length;
    }
    if (live.length > 0) {
      for (const extent of live) await this.#rewrite(extent);
      return true;
    }
    await this.flush();
    await this.#ring.recycle(oldest);
    this.#journal.roomAgain();
    return true;
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#recycling.ended();
    try {
      await this.#journal.close();
    } finally {
      await this.#ring.close();
    }
  }

  async #rewrite(extent: { start: number; length: number; zero: boolean }): Promise<void> {
    const bytes = new Uint8Array(extent.zero ? 0 : extent.length);
    if (!extent.zero) await this.read(extent.start, extent.length, bytes, 0);
    const errno = await new Promise<number>((resolve) => {
      this.submit({
        kind: extent.zero ? 'zeroes' : 'write',
        startBytes: extent.start,
        lengthBytes: extent.length,
        fua: false,
        payload: [bytes],
        payloadCount: extent.zero ? 0 : 1,
        complete: resolve,
      });
      this.kick();
    });
    if (errno !== Errno.ok)
      throw new MidmirrorError('io', `the journal refused to rewrite an extent (error ${errno})`);
  }

  #readNow(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#readByNow(this.#cursor.seek(start), true, start, length, target, targetOffset);
  }

  /** By the extents from the cursor on: those of the head, or older ones. */
  #readByNow(
    cursor: ExtentCursor,
    isHead: boolean,
    start: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    const end = start + length;
    let at = start;
    while (at < end) {
      const to = targetOffset + at - start;
      if (!cursor.valid || cursor.start > at) {
        const until = cursor.valid && cursor.start < end ? cursor.start : end;
        if (!this.#readBelowNow(isHead, at, until - at, target, to)) return false;
        at = until;
        continue;
      }
      const until = Math.min(cursor.end, end);
      if (cursor.source <= this.#recycledUpTo) {
        if (!this.#options.base.tryRead(at, until - at, target, to)) return false;
      } else if (cursor.flags & ExtentFlag.zero) target.fill(0, to, to + until - at);
      else if ((cursor.flags & ExtentFlag.whole) === 0) return false;
      else this.#readWhole(cursor, at - cursor.start, until - at, target, to);
      at = until;
      cursor.next();
    }
    return true;
  }

  #readBelowNow(isHead: boolean, start: number, length: number, target: Uint8Array, to: number): boolean {
    if (!isHead || !this.#hasEvicted) return this.#options.base.tryRead(start, length, target, to);
    const older = this.#options.older!.tryFind(start, length);
    return older !== null && this.#readByNow(older, false, start, length, target, to);
  }

  /** Reads from the extent under the cursor, which has a checksum of its own. */
  #readWhole(cursor: ExtentCursor, skip: number, count: number, target: Uint8Array, to: number): void {
    const { length, source, offset, crc } = cursor;
    const file = this.#ring.live.get(source)!.file;
    if (skip === 0 && count === length) {
      file.readSync(target, to, length, offset);
      if (checksumOf(target, to, length) !== crc)
        verifyPiece(target.subarray(to, to + length), length, crc, file.path, offset);
      return;
    }
    const read = file.readSync(this.#scratch, 0, length, offset);
    verifyPiece(this.#scratch.subarray(0, read), length, crc, file.path, offset);
    target.set(this.#scratch.subarray(skip, skip + count), to);
  }

  /** As `#readByNow`. The pieces are planned, and their segments held, before it first waits. */
  async #readBy(
    cursor: ExtentCursor,
    isHead: boolean,
    start: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    const pieces = this.#plan(cursor, start, length);
    for (const piece of pieces) if (piece.segment !== null) piece.segment.readers += 1;
    try {
      for (const piece of pieces) {
        const to = targetOffset + piece.at - start;
        if (piece.below) await this.#readBelow(isHead, piece.at, piece.length, target, to);
        else await this.#readPiece(piece, target, to);
      }
    } finally {
      for (const piece of pieces) piece.segment?.release();
    }
  }

  async #readBelow(
    isHead: boolean,
    start: number,
    length: number,
    target: Uint8Array,
    to: number,
  ): Promise<void> {
    if (!isHead || !this.#hasEvicted) return await this.#options.base.read(start, length, target, to);
    const older = await this.#options.older!.find(start, length);
    await this.#readBy(older, false, start, length, target, to);
  }

  #plan(cursor: ExtentCursor, start: number, length: number): Piece[] {
    const end = start + length;
    const pieces: Piece[] = [];
    let at = start;
    while (at < end) {
      if (!cursor.valid || cursor.start > at) {
        const until = cursor.valid && cursor.start < end ? cursor.start : end;
        pieces.push({ ...NOTHING, at, length: until - at });
        at = until;
        continue;
      }
      const until = Math.min(cursor.end, end);
      if (cursor.source <= this.#recycledUpTo) pieces.push({ ...NOTHING, at, length: until - at });
      else
        pieces.push({
          at,
          length: until - at,
          below: false,
          segment: cursor.flags & ExtentFlag.zero ? null : this.#ring.live.get(cursor.source)!,
          flags: cursor.flags,
          offset: cursor.offset,
          extentLength: cursor.length,
          crc: cursor.crc,
          skip: at - cursor.start,
        });
      at = until;
      cursor.next();
    }
    return pieces;
  }

  async #readPiece(piece: Piece, target: Uint8Array, to: number): Promise<void> {
    if (piece.flags & ExtentFlag.zero) target.fill(0, to, to + piece.length);
    else if (piece.flags & ExtentFlag.whole) {
      const file = piece.segment!.file;
      const bytes = await readBytes(file, piece.offset, piece.extentLength);
      verifyPiece(bytes, piece.extentLength, piece.crc, file.path, piece.offset);
      target.set(bytes.subarray(piece.skip, piece.skip + piece.length), to);
    } else {
      const reader = await this.#segmentReaders.of(piece.segment!);
      await reader.read(piece.offset + piece.skip, piece.length, target, to);
    }
  }

  /** Of a range that the head map lacks, from its start on: the older extents, and the base between them. */
  async *#spansBelow(start: number, length: number): AsyncGenerator<AllocationExtent> {
    if (!this.#hasEvicted) {
      yield await this.#options.base.span(start, length);
      return;
    }
    const end = start + Math.min(length, limits.allocationStepBytes);
    const cursor = await this.#options.older!.find(start, end - start);
    for (let at = start; at < end; ) {
      const covered = cursor.valid && cursor.start <= at;
      const until = covered ? Math.min(cursor.end, end) : Math.min(cursor.valid ? cursor.start : end, end);
      if (covered && cursor.source > this.#recycledUpTo)
        yield { lengthBytes: until - at, hole: (cursor.flags & ExtentFlag.zero) !== 0 };
      else
        for (let below = at; below < until; ) {
          const span = await this.#options.base.span(below, until - below);
          yield span;
          below += span.lengthBytes;
        }
      at = until;
      if (covered) cursor.next();
    }
  }
}

function applyBatch(head: ExtentMap, words: Uint32Array, count: number, segment: number): void {
  for (let i = 0; i < count; i += 1) {
    const base = 20 + i * 6;
    const kind = words[base]! & 255;
    const start = words[base + 2]! + words[base + 3]! * 4294967296;
    const length = words[base + 4]!;
    if (kind === DescriptorKind.write)
      head.put(start, length, ExtentFlag.whole, segment, words[base + 5]!, words[base + 1]!);
    else if (kind === DescriptorKind.zeroes) head.put(start, length, ExtentFlag.zero, segment, 0, 0);
    else if (kind === DescriptorKind.trim)
      head.put(start, length, ExtentFlag.zero | ExtentFlag.trim, segment, 0, 0);
  }
}
