// The writer of a forward journal: takes commands, stores what arrived together as one batch with one writev,
// answers, and makes it durable by group commit. One batch is under way at a time; the rest waits in order.
//
// States: open · waiting for a segment (ring full, or the next file not ready) · waiting for the disk (too many
// dirty bytes) · full (no space on the file system: writes are refused) · failed (an I/O error: nothing is
// trusted until a restart has recovered the ring from the files) · lost (another writer has claimed the journal).
// Whether it is lost is asked between the storing and the answer: what was stored before, the other has found.
import { type Clock, MidmirrorError, monotonicNs } from '@midmirror/basis';
import { Errno, errnoOf, Pacer, type WriteCommand } from '@midmirror/block-device';
import {
  BatchBuilder,
  checksum,
  DescriptorKind,
  encodeMark,
  Format,
  type GapRecord,
  type MarkRecord,
  PIECE_BYTES_MAX,
  pageAfter,
  segmentFooterBytesMax,
} from '@midmirror/journal';
import type { EpochClaim } from '@midmirror/pool';
import { BatchWatch } from './batch-watch.ts';
import { DurablePoint } from './durable-point.ts';
import type { JournalListener, JournalState } from './journal-listener.ts';
import { limits } from './limits.ts';
import { linger } from './linger.ts';
import { addPieces, fitsPiece, piecesOf, spaceFor } from './pieces.ts';
import { type CommitWaiter, JournalQueue, type QueuedMark } from './queued.ts';
import type { RingSegment } from './ring-segment.ts';
import { sealSegment } from './seal.ts';
import type { SegmentRing } from './segment-ring.ts';

export interface JournalEnd {
  nextSeq: number;
  lastNs: bigint;
  lastHeaderCrc: number;
}

const ZEROES = new Uint8Array(Format.pageBytes);

export class Journal {
  readonly #ring: SegmentRing;
  readonly #clock: Clock;
  readonly #claim: EpochClaim;
  readonly #listener: JournalListener;
  /** Called with each stored descriptor: the head map. */
  readonly #apply: (words: Uint32Array, count: number, segment: number) => void;
  readonly #builder = new BatchBuilder(limits.batchDescriptorsMax);

  #active: RingSegment | null = null;
  readonly #queue = new JournalQueue();
  #writing = false;
  #draining = false;
  #nextSeq: number;
  #lastNs: bigint;
  #previousCrc: number;
  #state: JournalState = 'open';
  #stateReason = '';

  readonly #durable: DurablePoint;
  readonly batchWatch = new BatchWatch();
  #dirtyBytes = 0;
  readonly #dirty = new Set<RingSegment>();
  #committing = false;
  #waiters: CommitWaiter[] = [];
  #preparing: Promise<void> | null = null;
  #sealing: Promise<void> = Promise.resolve();
  /** Flushes in a row that came after few writes, and writes since the last flush. */
  #flushStreak = 0;
  #writesSinceFlush = 0;
  #retry: NodeJS.Timeout | null = null;
  readonly #timer: NodeJS.Timeout;

  // The batch being written.
  readonly #batch: WriteCommand[] = [];
  readonly #pacer = new Pacer(limits.quickCommitMsMax, limits.commitHopsAfterSlow);
  #iovec: Uint8Array[] = [];

  constructor(
    ring: SegmentRing,
    end: JournalEnd,
    options: {
      clock: Clock;
      claim: EpochClaim;
      syncIntervalMs: number;
      listener: JournalListener;
      apply: (words: Uint32Array, count: number, segment: number) => void;
    },
  ) {
    this.#ring = ring;
    this.#clock = options.clock;
    this.#claim = options.claim;
    this.#listener = options.listener;
    this.#apply = options.apply;
    this.#nextSeq = end.nextSeq;
    this.#durable = new DurablePoint(end.nextSeq - 1, end.lastNs);
    this.#lastNs = end.lastNs;
    this.#previousCrc = end.lastHeaderCrc;
    this.#timer = setInterval(() => this.#commitSoon(), options.syncIntervalMs);
    this.#timer.unref();
  }

  get lastSeq(): number {
    return this.#nextSeq - 1;
  }
  get lastNs(): bigint {
    return this.#lastNs;
  }
  get durableSeq(): number {
    return this.#durable.seq;
  }
  /** Time of the latest write on stable storage, and of the oldest that is not; 0: all are. */
  get durability(): { latestNs: bigint; waitingSinceNs: bigint } {
    // Sealing syncs too.
    if (!this.#hasEnded && this.#dirty.size === 0 && !this.#committing)
      return { latestNs: this.#lastNs, waitingSinceNs: 0n };
    return { latestNs: this.#durable.timeNs, waitingSinceNs: this.#durable.waitingSinceNs };
  }
  get state(): JournalState {
    return this.#state;
  }
  get stateReason(): string {
    return this.#stateReason;
  }

  /** Readies the first segment; the journal takes writes from then on. */
  async open(): Promise<void> {
    await this.#prepareNext();
  }

  submit(command: WriteCommand): void {
    this.#queue.push(command);
  }

  kick(): void {
    if (!this.#writing) this.#drain();
  }

  /** Whether answers may still be given; when not, the listener has been told. */
  holds(): boolean {
    if (this.#state === 'lost') return false;
    if (this.#claim.holds()) return true;
    this.#setState('lost', 'another process has taken the volume over');
    setImmediate(() => this.#refuseAll(Errno.ESHUTDOWN));
    return false;
  }

  /** Nothing is stored any more. */
  get #hasEnded(): boolean {
    return this.#state === 'failed' || this.#state === 'lost';
  }

  /** Journals a mark, or an end of a gap, after everything submitted before it; resolves once it is durable. */
  async mark(record: MarkRecord | GapRecord): Promise<{ seq: number; timeNs: bigint }> {
    const point = await new Promise<{ seq: number; timeNs: bigint }>((resolve, reject) => {
      this.#queue.push({ kind: 'mark', bytes: encodeMark(record), resolve, reject });
      this.kick();
    });
    await this.flush();
    return point;
  }

  /** Resolves when everything answered before the call is durable. Concurrent calls share one fdatasync. */
  flush(): Promise<void> {
    this.#flushStreak = this.#writesSinceFlush <= limits.writesPerFlushFew ? this.#flushStreak + 1 : 0;
    this.#writesSinceFlush = 0;
    if (this.#flushStreak >= limits.flushesExpectedAfter) linger(limits.lingerMs);
    if (this.#hasEnded) return Promise.reject(this.#failure());
    if (this.#dirty.size === 0 && !this.#committing) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({
        seq: this.#nextSeq - 1,
        command: null,
        done: (error) => (error === null ? resolve() : reject(error)),
      });
      this.#commit();
    });
  }

  /** Recycling has made room, or a segment is ready: go on. */
  roomAgain(): void {
    void this.#prepareNext();
  }

  /** Ends the active segment now, so that what it holds can be recycled soon. */
  rotate(): void {
    if (this.#writing || this.#active === null || this.#active.descriptorCount === 0) return;
    this.#takeSegment();
  }

  /** Stops taking writes, ends those under way, makes all durable. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (!this.#hasEnded) {
      while (this.#writing) await new Promise<void>((resolve) => setImmediate(resolve));
      await this.flush();
      if (!this.#hasEnded) this.#setState('closed', 'the volume is closed');
    }
    this.#refuseQueue(Errno.ESHUTDOWN);
    await this.#preparing;
    await this.#sealing;
  }

  // ── storing ────────────────────────────────────────────────────────────────────────────────────────────

  #drain(): void {
    // Answering a write can bring in the next one: the loop that is running takes it.
    if (this.#draining) return;
    this.#draining = true;
    try {
      this.#drainQueue();
    } finally {
      this.#draining = false;
    }
  }

  #drainQueue(): void {
    while (this.#queue.length > 0 && !this.#writing) {
      if (this.#state === 'failed') return this.#refuseQueue(Errno.EIO);
      if (this.#state === 'closed' || this.#state === 'lost') return this.#refuseQueue(Errno.ESHUTDOWN);
      if (this.#dirtyBytes > limits.dirtyBytesMax && this.#committing) return;
      if (this.#active === null && !this.#takeSegment()) {
        if (this.#state === 'full') this.#refuseQueue(Errno.ENOSPC);
        return;
      }
      const first = this.#queue.at(0);
      const stored = first.kind === 'mark' ? this.#storeMark(first) : this.#storeWrites();
      if (!stored && !this.#takeSegment()) {
        if (this.#state === 'full') this.#refuseQueue(Errno.ENOSPC);
        return;
      }
    }
  }

  /** Collects and stores as many queued writes as fit; false: the active segment has no room for the first. */
  #storeWrites(): boolean {
    const segment = this.#active!;
    const room = this.#roomOf(segment);
    const batch = this.#batch;
    batch.length = 0;
    let descriptors = 0;
    let dataBytes = 0;
    for (let i = 0; i < this.#queue.length; i += 1) {
      const command = this.#queue.at(i);
      if (command.kind === 'mark') break;
      const bytes = command.kind === 'write' ? command.lengthBytes : 0;
      const pieces = command.kind === 'write' ? piecesOf(command.startBytes, bytes) : 1;
      const total = spaceFor(descriptors + pieces) + dataBytes + bytes;
      if (total > room) break;
      if (batch.length > 0 && dataBytes + bytes > limits.batchBytesMax) break;
      if (descriptors + pieces > limits.batchDescriptorsMax) break;
      batch.push(command);
      descriptors += pieces;
      dataBytes += bytes;
    }
    if (batch.length === 0) return false;
    this.#queue.drop(batch.length);
    const spare = room - spaceFor(descriptors) - dataBytes;
    if (dataBytes >= limits.ownPageBytesMin) this.#leavePageUnderWay(segment, spare);
    this.#buildWrites(segment, descriptors);
    this.#write(segment, batch.length, dataBytes, null);
    return true;
  }

  #buildWrites(segment: RingSegment, descriptors: number): void {
    const builder = this.#builder;
    builder.reset();
    const iovec = this.#iovec;
    iovec.length = 1; // the header goes first, when it is finished
    let dataOffset = segment.writeOffset + Format.batchHeaderBytes + descriptors * Format.descriptorBytes;
    for (const command of this.#batch) {
      const { kind, startBytes: start, lengthBytes: length } = command;
      if (kind === 'write') {
        if (command.payloadCount === 1 && length <= PIECE_BYTES_MAX && fitsPiece(start, length)) {
          const data = command.payload[0]!;
          builder.add(DescriptorKind.write, 0, checksum(data), start, length, dataOffset);
          iovec.push(data);
        } else addPieces(builder, iovec, command, dataOffset);
        dataOffset += length;
      } else {
        builder.add(
          kind === 'trim' ? DescriptorKind.trim : DescriptorKind.zeroes,
          0,
          0,
          start,
          length,
          dataOffset,
        );
      }
    }
  }

  #storeMark(mark: QueuedMark): boolean {
    const segment = this.#active!;
    if (spaceFor(1) + mark.bytes.length > this.#roomOf(segment)) return false;
    this.#queue.drop(1);
    this.#batch.length = 0;
    this.#builder.reset();
    const dataOffset = segment.writeOffset + Format.batchHeaderBytes + Format.descriptorBytes;
    this.#builder.add(DescriptorKind.mark, 0, checksum(mark.bytes), 0, mark.bytes.length, dataOffset);
    this.#iovec.length = 1;
    this.#iovec.push(mark.bytes);
    this.#write(segment, 0, mark.bytes.length, mark);
    return true;
  }

  #write(segment: RingSegment, writeCount: number, dataBytes: number, mark: QueuedMark | null): void {
    const timeNs = monotonicNs(this.#clock, this.#lastNs);
    const head = this.#builder.finish({
      epoch: segment.epoch,
      segment: segment.number,
      offset: segment.writeOffset,
      firstSeq: this.#nextSeq,
      timeNs,
      durableSeq: this.#durable.seq,
      writeCount,
      dataBytes,
      previousCrc: this.#previousCrc,
    });
    const iovec = this.#iovec;
    iovec[0] = head;
    const total = head.length + dataBytes;
    // Fill the last page: the kernel need not read the rest of it from the disk first.
    const end = segment.writeOffset + total;
    const padding = Math.min(pageAfter(end), this.#ring.config.segmentBytes) - end;
    if (padding > 0) iovec.push(ZEROES.subarray(0, padding));
    if (this.#dirty.size === 0) this.#durable.restIsDurable();
    this.#dirty.add(segment);
    if (this.batchWatch.armed) this.batchWatch.began(this.#batch, this.#nextSeq, dataBytes);
    if (total <= limits.synchronousWriteBytesMax) {
      try {
        segment.file.writevSync(iovec, segment.writeOffset);
      } catch (error) {
        return this.#writeFailed(error, mark);
      }
      this.#stored(segment, head, timeNs, writeCount, dataBytes, mark);
      return;
    }
    this.#writing = true;
    segment.file.writev(iovec, segment.writeOffset).then(
      () => {
        this.#writing = false;
        this.#stored(segment, head, timeNs, writeCount, dataBytes, mark);
        this.#drain();
      },
      (error: unknown) => {
        this.#writing = false;
        this.#writeFailed(error, mark);
        this.#drain();
      },
    );
  }

  #stored(
    segment: RingSegment,
    head: Uint8Array,
    timeNs: bigint,
    writeCount: number,
    dataBytes: number,
    mark: QueuedMark | null,
  ): void {
    if (!this.holds()) {
      for (const command of this.#batch) command.complete(Errno.ESHUTDOWN);
      this.#batch.length = 0;
      mark?.reject(this.#failure());
      return;
    }
    const lastNs = writeCount > 1 ? timeNs + BigInt(writeCount - 1) : timeNs;
    segment.batchCount += 1;
    segment.writeOffset += head.length + dataBytes;
    segment.descriptorCount += this.#builder.count;
    if (segment.firstNs === 0n) segment.firstNs = timeNs;
    segment.lastNs = lastNs;
    segment.lastSeq = this.#nextSeq + writeCount - 1;
    segment.lastHeaderCrc = this.#builder.headerCrc;
    segment.log!.append(head);
    this.#previousCrc = this.#builder.headerCrc;
    this.#nextSeq += writeCount;
    this.#lastNs = lastNs;
    this.#durable.stored(timeNs);
    if (this.batchWatch.armed) this.batchWatch.stored();
    this.#dirtyBytes += head.length + dataBytes;
    this.#apply(this.#builder.words, this.#builder.count, segment.number);
    this.#answer(mark === null ? null : () => mark.resolve({ seq: this.#nextSeq - 1, timeNs }));
    this.#writesSinceFlush += writeCount;
    if (this.#dirtyBytes > limits.dirtyBytesSoft) this.#commit();
    else if (this.#flushStreak >= limits.flushesExpectedAfter) this.#commitAhead();
  }

  /** A guest that has flushed after each few writes will do so again: begin while its request is on the way. */
  #commitAhead(): void {
    if (this.#writesSinceFlush > limits.writesPerFlushFew) this.#flushStreak = 0;
    else setImmediate(() => this.#commitSoon());
  }

  #answer(markDone: (() => void) | null): void {
    const batch = this.#batch;
    const seq = this.#nextSeq - 1;
    let mustSync = false;
    for (let i = 0; i < batch.length; i += 1) {
      const command = batch[i]!;
      if (command.fua) {
        this.#waiters.push({ seq, command, done: null });
        mustSync = true;
      } else command.complete(Errno.ok);
    }
    batch.length = 0;
    if (markDone !== null) markDone();
    if (mustSync) this.#commit();
  }

  #writeFailed(error: unknown, mark: QueuedMark | null): void {
    // The bytes at this place are of no batch that counts: the next batch is written over them.
    const errno = errnoOf(error);
    for (const command of this.#batch) command.complete(errno);
    this.#batch.length = 0;
    mark?.reject(error as MidmirrorError);
    if (errno !== Errno.ENOSPC) this.#fail(error);
  }

  /**
   * A page on its way to the disk can't be written before it has arrived: a batch that begins in the last page of
   * the one before would wait for the fdatasync (340 MB/s against 3800, measured). So begin in the next page.
   */
  #leavePageUnderWay(segment: RingSegment, spareBytes: number): void {
    const next = pageAfter(segment.writeOffset);
    if (this.#committing && next - segment.writeOffset <= spareBytes) segment.writeOffset = next;
  }

  #roomOf(segment: RingSegment): number {
    const footer = segmentFooterBytesMax(segment.descriptorCount, segment.batchCount + 1) + 8;
    return this.#ring.config.segmentBytes - segment.writeOffset - footer;
  }

  // ── segments ───────────────────────────────────────────────────────────────────────────────────────────

  /** Goes on in the prepared segment; false: none is ready, `roomAgain` or its preparation will call back. */
  #takeSegment(): boolean {
    const next = this.#ring.takePrepared();
    if (next === null) {
      this.#listener.pressure(this.#ring.share);
      void this.#prepareNext();
      return false;
    }
    const old = this.#active;
    next.firstSeq = this.#nextSeq;
    next.lastSeq = this.#nextSeq - 1;
    this.#active = next;
    if (old !== null) this.#seal(old);
    this.#listener.pressure(this.#ring.share);
    void this.#prepareNext();
    return true;
  }

  #seal(segment: RingSegment): void {
    this.#sealing = this.#sealing.then(async () => {
      try {
        await sealSegment(segment, this.#ring.config.segmentBytes);
        // Sealing has synced all of it; by the next commit it may be recycled.
        this.#dirty.delete(segment);
        this.#listener.sealed(segment);
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  #prepareNext(): Promise<void> {
    this.#preparing ??= this.#prepare().finally(() => {
      this.#preparing = null;
    });
    return this.#preparing;
  }

  async #prepare(): Promise<void> {
    if (this.#hasEnded || this.#state === 'closed' || !this.holds()) return;
    try {
      await this.#ring.prepare();
      if (this.#state === 'full') this.#setState('open', 'there is space again');
    } catch (error) {
      if (errnoOf(error) === Errno.ENOSPC) this.#becomeFull(error as MidmirrorError);
      else this.#fail(error);
      return;
    }
    if (this.#active === null && this.#ring.hasPrepared) this.#takeSegmentWhenOpening();
    if (!this.#writing) setImmediate(() => this.#drain());
  }

  #takeSegmentWhenOpening(): void {
    const next = this.#ring.takePrepared()!;
    next.firstSeq = this.#nextSeq;
    next.lastSeq = this.#nextSeq - 1;
    this.#active = next;
    setImmediate(() => void this.#prepareNext());
  }

  #becomeFull(error: MidmirrorError): void {
    if (this.#state === 'open') this.#setState('full', error.message);
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      void this.#prepareNext();
    }, limits.fullDiskRetryMs);
    this.#retry.unref();
    if (!this.#writing) this.#drain();
  }

  // ── group commit ───────────────────────────────────────────────────────────────────────────────────────

  #commitSoon(): void {
    if (this.#dirty.size > 0 && !this.#hasEnded) this.#commit();
  }

  #commit(): void {
    if (this.#committing) return;
    this.#committing = true;
    void this.#commitLoop();
  }

  async #commitLoop(): Promise<void> {
    do {
      const seq = this.#nextSeq - 1;
      this.#durable.begin(seq, this.#lastNs);
      const covered = this.#waiters;
      this.#waiters = [];
      const segments = [...this.#dirty];
      this.#dirty.clear();
      const dirtyBytes = this.#dirtyBytes;
      this.#dirtyBytes = 0;
      // A batch under way belongs to the next round.
      if (this.#writing && this.#active !== null) this.#dirty.add(this.#active);
      let failure: MidmirrorError | null = null;
      try {
        const quick =
          dirtyBytes <= limits.quickCommitBytesMax &&
          segments.length === 1 &&
          this.#pacer.tryNow(() => segments[0]!.syncNow());
        if (!quick) await Promise.all(segments.map((segment) => segment.file.datasync()));
        if (!this.holds()) failure = this.#failure();
        else {
          this.#durable.end();
          this.batchWatch.durable(seq);
        }
      } catch (error) {
        // After a failed fdatasync nobody knows which pages are on disk: no further promise is made.
        failure = this.#fail(error);
      }
      for (const waiter of covered) {
        waiter.command?.complete(failure === null ? Errno.ok : errnoOf(failure));
        waiter.done?.(failure);
      }
      if (failure === null) this.#listener.durable(seq);
    } while (this.#waiters.length > 0 && !this.#hasEnded);
    this.#committing = false;
    if (this.#hasEnded) this.#failWaiters();
    if (!this.#writing) this.#drain();
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────

  #setState(state: JournalState, reason: string): void {
    this.#state = state;
    this.#stateReason = reason;
    this.#listener.stateChanged(state, reason);
  }

  #fail(error: unknown): MidmirrorError {
    if (!this.#hasEnded) {
      this.#setState('failed', error instanceof Error ? error.message : String(error));
      setImmediate(() => this.#refuseAll(Errno.EIO));
    }
    return this.#failure();
  }

  #refuseAll(errno: number): void {
    this.#refuseQueue(errno);
    this.#failWaiters();
  }

  #failure(): MidmirrorError {
    if (this.#state === 'lost')
      return new MidmirrorError('unavailable', this.#stateReason, { hint: 'connect again' });
    return new MidmirrorError('io', `the journal has failed: ${this.#stateReason}`, {
      hint: 'restart the appliance: it recovers the journal from its files',
    });
  }

  #failWaiters(): void {
    for (const waiter of this.#waiters.splice(0)) {
      waiter.command?.complete(errnoOf(this.#failure()));
      waiter.done?.(this.#failure());
    }
  }

  #refuseQueue(errno: number): void {
    this.#queue.refuseAll(errno, this.#stateReason);
  }
}
