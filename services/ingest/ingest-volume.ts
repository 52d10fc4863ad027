// One volume as ingest serves it: the live disk, and the publisher that tells the others what became durable.
// The journal is the outbox: it is written first, events follow, and a restart publishes what is lacking.
import { type Clock, MidmirrorError, messageOf, ReasonLog } from '@midmirror/basis';
import { type Bus, ask, askReaders, tell } from '@midmirror/bus';
import { type Catalog, type CatalogTransaction, toNs } from '@midmirror/catalog';
import {
  type DomainEvent,
  encodeDescriptors,
  journalSubject,
  type MarkKind,
  Streams,
} from '@midmirror/events';
import { packedBatches } from '@midmirror/journal';
import { LiveDisk, type RingSegment } from '@midmirror/live-disk';
import {
  claimEpoch,
  type EpochClaim,
  MimImage,
  type PoolFiles,
  segmentsOf,
  type VolumePaths,
  volumePaths,
  type Writer,
} from '@midmirror/pool';
import type { PageCache } from '@midmirror/runs';
import { NO_SPAN, type Telemetry } from '@midmirror/telemetry';
import type { IngestConfig } from './config.ts';
import { limits } from './limits.ts';
import { OlderRuns } from './older-runs.ts';
import { timeOfWrite } from './time-of-write.ts';
import { VolumeGaps } from './volume-gaps.ts';
import { VolumeMeter } from './volume-meter.ts';
import { writeBatchSpan } from './write-batch-span.ts';

const MESSAGE_BYTES_MAX = 512 << 10;
const RETRY_MS = 500;
const RELIEVE_EVERY_MS = 200;
/** Of the ring, how much is in use when a sync is asked for and people are warned, and when they may be warned anew. */
const RELIEVE_SHARE = 0.75;
const RELIEVED_SHARE = 0.6;
const SOURCE = '/midmirror/ingest';

export type IngestPlace = 'durable' | 'sealed' | 'published' | 'recycling' | 'recycled';

export interface VolumeContext {
  files: PoolFiles;
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  config: IngestConfig;
  /** Who this process is to those who may want the same volume. */
  writer: Writer;
  /** Pages of runs in memory, shared with whoever else reads runs. */
  pages: PageCache;
  /** Called at named places; tests stop the world there. */
  reached: (place: IngestPlace) => void;
  log: (message: string) => void;
  telemetry: Telemetry;
  /** How long a mapping index that does not answer keeps segments from being recycled. */
  readerLeaseMs: number;
}

interface OpenedVolume {
  id: string;
  name: string;
  sizeBytes: number;
  segmentBytes: number;
  mimSeq: number;
  mimNs: bigint;
}

export class IngestVolume {
  readonly id: string;
  readonly name: string;
  disk!: LiveDisk;
  gaps!: VolumeGaps;
  readonly meter = new VolumeMeter();
  readonly #context: VolumeContext;
  readonly #paths: VolumePaths;
  readonly #lost = new AbortController();
  #claim!: EpochClaim;
  #mim!: MimImage;
  #mimSeq = 0;
  /** What of each segment's descriptor log is published, by segment number. */
  readonly #published = new Map<number, number>();
  readonly #sealed: RingSegment[] = [];
  #publishing: Promise<number> | null = null;
  #publishAgain = false;
  /** When the first became durable of what is not yet published; null: not known, or there is none. */
  #durableNs: bigint | null = null;
  /** The bus may have lost something since the last round. */
  #compare = false;
  readonly #busAway = Promise.withResolvers<void>();
  #lastPosition = 0;
  readonly #waits: ReasonLog;
  #filling: 'no' | 'to be told' | 'told' = 'no';
  #relieving: Promise<void> | null = null;
  #publishTimer: NodeJS.Timeout | null = null;
  #publishAfterRest = false;
  #closing = false;

  private constructor(id: string, name: string, directory: string, context: VolumeContext) {
    this.id = id;
    this.name = name;
    this.#context = context;
    this.#waits = new ReasonLog(context.log);
    this.#paths = volumePaths(directory);
  }

  /** Throws `unavailable` when somebody else has just taken it. */
  static async open(
    volume: OpenedVolume,
    directory: string,
    context: VolumeContext,
    headBytesMax: number,
  ): Promise<IngestVolume> {
    const opened = new IngestVolume(volume.id, volume.name, directory, context);
    const { files } = context;
    const segments = segmentsOf(await files.list(opened.#paths.forward));
    opened.#claim = await claimEpoch({
      ...context.writer,
      files,
      directory: opened.#paths.claims,
      epochSeen: segments.at(-1)?.epoch ?? 0,
    });
    try {
      await opened.#begin(volume, headBytesMax);
      return opened;
    } catch (error) {
      await opened.#giveUp();
      throw error;
    }
  }

  async #begin(volume: OpenedVolume, headBytesMax: number): Promise<void> {
    const { files, clock, config, catalog, pages, log, reached, telemetry } = this.#context;
    this.#mim = await MimImage.open(files, this.#paths);
    this.#mimSeq = volume.mimSeq;
    this.disk = await LiveDisk.open({
      files,
      directory: this.#paths.forward,
      volumeId: volume.id,
      sizeBytes: volume.sizeBytes,
      segmentBytes: volume.segmentBytes,
      segmentsMax: Math.max(4, Math.floor(config.journalBytesMax / volume.segmentBytes)),
      requestBytesMax: config.requestBytesMax,
      syncIntervalMs: config.syncIntervalMs,
      clock,
      floor: { seq: volume.mimSeq, timeNs: volume.mimNs, anyFirst: false },
      claim: this.#claim,
      base: this.#mim,
      older: new OlderRuns(volume.id, catalog, pages),
      headBytesMax,
      listener: {
        durable: () => {
          reached('durable');
          this.#durableNs ??= clock.nowNs();
          this.#publishSoon();
        },
        sealed: (segment) => {
          reached('sealed');
          this.#sealed.push(segment);
          this.#durableNs ??= clock.nowNs();
          void this.publish();
        },
        pressure: (share) => this.#pressure(share),
        stateChanged: (state, reason) => {
          if (state !== 'closed') log(`volume ${volume.name}: ${state}: ${reason}`);
          if (state === 'lost') this.#lost.abort();
        },
      },
    });
    if (telemetry.tracing) this.disk.batchWatch.arm();
    await this.#takeRows();
    for (const mark of this.disk.recoveredMarks)
      await this.#recordMark(mark.name, mark.kind as MarkKind, mark.seq, mark.timeNs);
    this.gaps = await VolumeGaps.open(this.#gapContext(), this.disk.recoveredGaps);
    await this.#forgetRecycled();
    this.#sealed.unshift(...this.disk.segments.filter((segment) => segment.sealed));
    // Guests are served although the bus is away: what it lacks is published when it is back (I6).
    await Promise.race([this.publish(), this.#busAway.promise]);
  }

  /** Could not be opened, which is told instead of what comes of this. The claim stays when something may go on under it. */
  async #giveUp(): Promise<void> {
    this.#closing = true;
    const disk = this.disk as LiveDisk | undefined;
    const closing = disk === undefined ? Promise.reject(new Error('it was not open')) : disk.close();
    await closing.then(() => this.#claim.release()).catch(() => {});
    await (this.#mim as MimImage | undefined)?.close();
  }

  /** From now on the catalogue takes no rows of those who wrote the journal before. */
  async #takeRows(): Promise<void> {
    await this.#context.catalog.transaction(async (tx) => {
      await this.#refuseDisplaced(tx);
      await tx.updateTable('volume').set({ epoch: this.#claim.epoch }).where('id', '=', this.id).execute();
    });
  }

  async #refuseDisplaced(tx: CatalogTransaction): Promise<void> {
    const row = await tx.selectFrom('volume').select('epoch').where('id', '=', this.id).executeTakeFirst();
    if (row === undefined || row.epoch <= this.#claim.epoch) return;
    this.#lost.abort();
    throw this.#displaced();
  }

  #displaced(): MidmirrorError {
    return new MidmirrorError('unavailable', `volume "${this.name}" has been taken over by another process`, {
      hint: 'try again: the request goes to the new one',
    });
  }

  /** Throws when what is found here is no longer what the volume is. */
  #refuseUnlessOurs(): void {
    if (!this.#claim.holds()) throw this.#displaced();
  }

  /** Whether somebody else has taken it over is seen with each answer; and here, when there is none to give. */
  look(): void {
    if (this.#claim.holds() || this.#lost.signal.aborted) return;
    this.#context.log(this.#displaced().message);
    this.hangUp();
  }

  /** Clients must connect anew, and get no answer here. */
  hangUp(): void {
    this.#lost.abort();
  }

  /** Aborted when another process has taken the volume over. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async mark(name: string, kind: MarkKind): Promise<{ seq: number; timeNs: bigint }> {
    this.#refuseUnlessOurs();
    this.gaps.refuseMark(name);
    const point = await this.disk.mark({ name, kind });
    await this.#recordMark(name, kind, point.seq, point.timeNs);
    return point;
  }

  #gapContext(): Parameters<typeof VolumeGaps.open>[0] {
    const { files, catalog } = this.#context;
    return {
      ...{ files, catalog, paths: this.#paths, epoch: this.#claim.epoch, volume: this },
      journal: (record) => this.disk.mark(record),
      timeOf: (seq) => timeOfWrite(this.disk.segments, catalog.db, this.id, seq),
      refuseUnlessOurs: () => this.#refuseUnlessOurs(),
      commit: (event, change) => this.#commit(event, change),
    };
  }

  /** Everything answered so far is durable and published; where the stream stands then. */
  async flushAndPublish(): Promise<{ seq: number; timeNs: bigint; position: number }> {
    const seq = this.disk.lastSeq;
    const timeNs = this.disk.lastNs;
    await this.disk.flush();
    const position = await this.publish();
    this.#refuseUnlessOurs();
    return { seq, timeNs, position };
  }

  /** The bus was away. */
  busReturned(): void {
    this.#compare = true;
    void this.publish();
    // A ring that was full when it was opened has asked for nothing yet.
    if (this.disk.ringShare >= RELIEVE_SHARE) this.#relieve();
  }

  /** The MIM holds everything up to `seq`. `traceparent`: of the sync that made it so. */
  async recycle(seq: number, traceparent?: string): Promise<number> {
    this.#refuseUnlessOurs();
    this.#mimSeq = Math.max(this.#mimSeq, seq);
    await this.#mim.reload();
    await this.publish();
    if (!this.disk.segments.some((segment) => segment.sealed && segment.lastSeq <= this.#mimSeq)) return 0;
    // One that does not answer sees by the pool that it is behind: it fences itself.
    const { bus, readerLeaseMs } = this.#context;
    const signal = this.#lost.signal;
    const options = { leaseMs: readerLeaseMs, signal, traceparent };
    await askReaders(bus, 'mapping-index.advance', { volumeId: this.id }, options);
    this.#refuseUnlessOurs();
    this.#context.reached('recycling');
    const numbers = await this.disk.recycle(this.#mimSeq);
    if (numbers.length > 0) await this.#forgetSegments(numbers, traceparent);
    this.#context.reached('recycled');
    return numbers.length;
  }

  /** Everything answered is durable; what can't be published now is published at the next start. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#publishTimer !== null) clearTimeout(this.#publishTimer);
    let closed = false;
    try {
      await this.disk.close();
      closed = true;
    } finally {
      await this.publish();
      if (closed && this.#claim.holds()) await this.#claim.release();
      await this.#mim.close();
    }
  }

  // ── publishing ─────────────────────────────────────────────────────────────────────────────────────────

  /** At once, then with a rest: flushes may come by the thousand a second; messages need not. */
  #publishSoon(): void {
    if (this.#closing) return;
    this.#publishAfterRest = this.#publishTimer !== null;
    if (this.#publishAfterRest) return;
    void this.publish();
    this.#publishTimer = setTimeout(() => {
      this.#publishTimer = null;
      if (this.#publishAfterRest) this.#publishSoon();
    }, this.#context.config.publishRestMs ?? limits.publishRestMs);
  }

  /** Publishes what is durable and not yet published. Runs one at a time; a call during a run adds a round. */
  publish(): Promise<number> {
    this.#publishAgain = true;
    this.#publishing ??= this.#publishRounds();
    return this.#publishing;
  }

  async #publishRounds(): Promise<number> {
    // Never ends before `#publishing` is set; at its end no call can come between the last look and the reset.
    await null;
    try {
      while (this.#publishAgain) {
        this.#publishAgain = false;
        try {
          await this.#publishRound();
          this.#waits.over();
        } catch (error) {
          this.#busAway.resolve();
          if (this.#closing || this.#lost.signal.aborted) break;
          // The bus or the catalogue is away: guests go on, the journal keeps what is to be told (I6).
          this.#waits.say(`volume ${this.name}: publishing waits: ${messageOf(error)}`);
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          this.#publishAgain = !this.#closing;
        }
      }
      return this.#lastPosition;
    } finally {
      this.#publishing = null;
    }
  }

  async #publishRound(): Promise<void> {
    // Whoever has taken the volume over has found all that was stored here, and tells of it.
    if (!this.#claim.holds()) return;
    // What becomes durable or is sealed meanwhile is the next round's: else a flushing guest would keep this one
    // going, and a segment would be told of before its last descriptors.
    if (this.#compare) await this.#forgetLost();
    const upTo = this.disk.durableSeq;
    const sealed = this.#sealed.length;
    const durableNs = this.#durableNs;
    this.#durableNs = null;
    try {
      for (const segment of this.disk.segments)
        if (segment.log !== null) await this.#publishLog(segment, upTo, durableNs);
    } catch (error) {
      this.#durableNs = durableNs ?? this.#durableNs;
      throw error;
    }
    for (let i = 0; i < sealed; i += 1) {
      await this.#publishSealed(this.#sealed[0]!);
      this.#sealed.shift();
    }
    if (!this.gaps.told) await this.gaps.tell();
    if (this.#filling === 'to be told') await this.#tellOfFilling();
  }

  async #tellOfFilling(): Promise<void> {
    const { journalBytesUsed: bytesUsed, journalBytesMax: bytesMax } = this.disk;
    const timeNs = this.#context.clock.nowNs().toString();
    const data = { bytesUsed, bytesMax };
    await this.#commit({ type: 'journal.filling', volumeId: this.id, timeNs, data }, async () => {});
    this.#filling = 'told';
  }

  /** What the stream has lost is not published: all descriptors of segments that nobody was told of come again. */
  async #forgetLost(): Promise<void> {
    this.#compare = false;
    try {
      const last = await this.#context.bus.lastOf(Streams.journal, journalSubject(this.id));
      if (last >= this.#lastPosition) return;
    } catch (error) {
      this.#compare = true;
      throw error;
    }
    this.#context.log(`volume ${this.name}: the bus has lost descriptors; they are published again`);
    this.#published.clear();
    this.#durableNs = null;
    this.#lastPosition = 0;
  }

  async #publishLog(segment: RingSegment, upTo: number, durableNs: bigint | null): Promise<void> {
    const log = segment.log!;
    for (;;) {
      const from = this.#published.get(segment.number) ?? 0;
      const part = durablePart(log.bytes(from, log.length), upTo, segment.sealed);
      if (part.length === 0) return;
      const to = from + part.length;
      const batches = log.bytes(from, to).slice();
      const times = this.disk.batchWatch.take(part.firstSeq, part.lastSeq);
      const span = times === null ? NO_SPAN : writeBatchSpan(this.#context.telemetry, this.name, times);
      const publishing = span.child('publish extents.journaled');
      const envelope = encodeDescriptors(
        {
          ...{ volumeId: this.id, epoch: segment.epoch, durableNs, batches },
          ...{ firstSeq: part.firstSeq, lastSeq: part.lastSeq },
        },
        `${segment.number}-${from}-${to}`,
        SOURCE,
        publishing.traceparent,
      );
      const { position } = await this.#context.bus.publish(
        Streams.journal,
        journalSubject(this.id),
        envelope,
      );
      this.#lastPosition = Math.max(this.#lastPosition, position);
      this.#published.set(segment.number, to);
      publishing.end();
      span.end();
      this.#context.reached('published');
    }
  }

  async #publishSealed(segment: RingSegment): Promise<void> {
    const { number, epoch, firstSeq, lastSeq, firstNs, lastNs } = segment;
    await this.#commit(
      {
        type: 'segment.sealed',
        volumeId: this.id,
        timeNs: lastNs.toString(),
        data: {
          segment: number,
          epoch,
          firstSeq,
          lastSeq,
          firstTimeNs: firstNs.toString(),
          lastTimeNs: lastNs.toString(),
        },
      },
      async (tx) => {
        const row = {
          volume_id: this.id,
          segment: number,
          epoch,
          first_seq: firstSeq,
          last_seq: lastSeq,
          first_ns: toNs(firstNs),
          last_ns: toNs(lastNs),
        };
        await tx
          .insertInto('segment')
          .values(row)
          .onConflict((c) => c.columns(['volume_id', 'segment']).doUpdateSet(row))
          .execute();
      },
    );
    segment.log = null;
    this.#published.delete(number);
    if (lastSeq <= this.#mimSeq) setImmediate(() => this.#recycleLater());
  }

  #recycleLater(): void {
    this.recycle(this.#mimSeq).catch((error: unknown) => {
      this.#context.log(`volume ${this.name}: recycling waits: ${messageOf(error)}`);
    });
  }

  #pressure(share: number): void {
    if (share < RELIEVED_SHARE) this.#filling = 'no';
    if (share < RELIEVE_SHARE) return;
    if (this.#filling === 'no') {
      this.#filling = 'to be told';
      this.#context.log(
        `volume ${this.name}: the journal is ${Math.round(share * 100)} % full; at 100 % writers wait until a sync frees space`,
      );
      this.#publishSoon();
    }
    this.#relieve();
  }

  #relieve(): void {
    this.#relieving ??= this.#askForSpace().finally(() => {
      this.#relieving = null;
    });
  }

  /** Until there is space: writers may be waiting, and what was asked before a segment was told of frees nothing. */
  async #askForSpace(): Promise<void> {
    const reasons = new ReasonLog(this.#context.log);
    while (!this.#closing && !this.#lost.signal.aborted && this.disk.ringShare >= RELIEVE_SHARE) {
      try {
        await ask(this.#context.bus, 'synchronizer.relieve', { volumeId: this.id });
      } catch (error) {
        reasons.say(`volume ${this.name}: no sync for space yet: ${messageOf(error)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, RELIEVE_EVERY_MS).unref());
    }
  }

  async #recordMark(name: string, kind: MarkKind, seq: number, timeNs: bigint): Promise<void> {
    const data = { seq, timeNs: timeNs.toString(), name, kind };
    await this.#commit(
      { type: 'mark.set', volumeId: this.id, timeNs: timeNs.toString(), data },
      async (tx) => {
        const row = { volume_id: this.id, name, kind, seq, time_ns: toNs(timeNs) };
        await tx
          .insertInto('mark')
          .values(row)
          .onConflict((c) => c.columns(['volume_id', 'name']).doNothing())
          .execute();
      },
    );
  }

  /** Segments whose recycling a crash cut short, or whose file was free again when the ring was recovered. */
  async #forgetRecycled(): Promise<void> {
    const { db } = this.#context.catalog;
    const live = new Set(this.disk.segments.map((segment) => segment.number));
    const rows = await db
      .selectFrom('segment')
      .select('segment')
      .where('volume_id', '=', this.id)
      .where('last_seq', '<=', this.#mimSeq)
      .orderBy('segment')
      .execute();
    const gone = rows.map((row) => row.segment).filter((segment) => !live.has(segment));
    if (gone.length > 0) await this.#forgetSegments(gone);
  }

  async #forgetSegments(numbers: number[], traceparent?: string): Promise<void> {
    await this.#commit(
      {
        type: 'segment.recycled',
        volumeId: this.id,
        timeNs: this.#context.clock.nowNs().toString(),
        data: { segment: numbers.at(-1)! },
      },
      async (tx) => {
        await tx
          .deleteFrom('segment')
          .where('volume_id', '=', this.id)
          .where('segment', 'in', numbers)
          .execute();
      },
      traceparent,
    );
  }

  async #commit(
    event: DomainEvent,
    change: (tx: CatalogTransaction) => Promise<unknown>,
    traceparent?: string,
  ): Promise<void> {
    const { catalog, bus } = this.#context;
    await catalog.transaction(async (tx) => {
      await this.#refuseDisplaced(tx);
      await change(tx);
      await tell(bus, tx, SOURCE, event, traceparent);
    });
  }
}

/** How much of a log, from its start, is durable; at most one message's worth. */
function durablePart(
  bytes: Uint8Array,
  durableSeq: number,
  sealed: boolean,
): { length: number; firstSeq: number; lastSeq: number } {
  let length = 0;
  let firstSeq = 0;
  let lastSeq = 0;
  for (const { at, batch } of packedBatches(bytes)) {
    const last = batch.firstSeq + batch.writeCount - 1;
    if (!sealed && Math.max(last, batch.firstSeq) > durableSeq) break;
    const end = at + 80 + batch.descriptorCount * 24;
    if (length > 0 && end > MESSAGE_BYTES_MAX) break;
    if (length === 0) firstSeq = batch.firstSeq;
    lastSeq = last;
    length = end;
  }
  return { length, firstSeq, lastSeq };
}
