// Learns from the journal's and the timeline's events: descriptors go to the tails, a sealed segment's footer
// becomes a run, a recycled segment's run goes. The position in the journal's stream is that of the oldest
// descriptor not yet in a run, and is stored with the runs. Who tells may have lost the volume to another: what becomes a
// run is what the pool holds under the segment's name, and what goes is what the MIM has.
import { type Clock, MidmirrorError, messageOf, untilAvailable } from '@midmirror/basis';
import type { Bus, BusMessage, Subscription } from '@midmirror/bus';
import {
  type Catalog,
  type CatalogTransaction,
  deleteForwardRuns,
  insertRun,
  runOf,
  toNs,
  volumeById,
} from '@midmirror/catalog';
import {
  type DomainEvent,
  decodeDescriptors,
  eventOf,
  journalSubject,
  Streams,
  traceparentOf,
} from '@midmirror/events';
import {
  type Batch,
  descriptorsOf,
  type Descriptor,
  DescriptorKind,
  packedBatches,
  type SegmentFooter,
} from '@midmirror/journal';
import { newestClaim, PieceReader, type PoolFiles, volumePaths } from '@midmirror/pool';
import { asStep, type Report, type Telemetry } from '@midmirror/telemetry';
import { JournalLag } from './journal-lag.ts';
import { batchesOf, Tail } from './tail.ts';

const JOURNAL = 'mapping-index.journal';
const TIMELINE = 'mapping-index.timeline';
const MINUTE_NS = 60_000_000_000n;

export interface Activity {
  minuteNs: bigint;
  writes: number;
  bytes: number;
  firstSeq: number;
  lastSeq: number;
}

/** What of a sealed segment was told. */
type Sealed = Extract<DomainEvent, { type: 'segment.sealed' }>['data'];

export interface ProjectorContext {
  files: PoolFiles;
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  poolDirectory: string;
  log: (message: string) => void;
  telemetry: Telemetry;
  /**
   * What was opened as this segment before is not what its run tells of, perhaps (a displaced owner's file of that
   * number), or it has left the ring.
   */
  closed: (volumeId: string, segment: number) => Promise<void>;
  deleted: (volumeId: string) => Promise<void>;
  /** Runs of a side have come behind all others, or come or gone anywhere. */
  changed: (volumeId: string, side: 'forward' | 'backward', where: 'end' | 'anywhere') => void;
}

export class Projector {
  readonly #context: ProjectorContext;
  readonly #tails = new Map<string, Tail>();
  readonly #lag = new JournalLag();
  /** Where the journal's stream ended when this process began: what lay in it then may have been handled before. */
  #endAtStart = Number.POSITIVE_INFINITY;
  #seen = 0;
  #journal: Subscription | null = null;
  #timeline: Subscription | null = null;

  constructor(context: ProjectorContext) {
    this.#context = context;
  }

  async start(signal: AbortSignal): Promise<void> {
    const { bus, log } = this.#context;
    const waiting = { what: 'mapping-index: its start', log, signal };
    const [journal, timeline] = await untilAvailable(
      () => Promise.all([this.#position(JOURNAL), this.#position(TIMELINE)]),
      waiting,
    );
    this.#seen = journal;
    this.#journal = bus.consume({
      stream: Streams.journal,
      after: this.#seen,
      handler: (message) => this.#traced(message, () => this.#descriptors(message)),
    });
    this.#timeline = bus.consume({
      stream: Streams.timeline,
      after: timeline,
      handler: (message) => this.#traced(message, () => this.#event(eventOf(message), message.position)),
    });
    // What an earlier process sealed and did not publish is known by its end alone: no point is opened before that.
    const reading = this.#timeline;
    await untilAvailable(async () => {
      await bus.ready();
      this.#endAtStart = Math.min(this.#endAtStart, await bus.lastPosition(Streams.journal));
      await reading.reached(await bus.lastPosition(Streams.timeline));
    }, waiting);
  }

  async stop(): Promise<void> {
    await this.#timeline?.stop();
    await this.#journal?.stop();
  }

  tail(volumeId: string): Tail {
    let tail = this.#tails.get(volumeId);
    if (tail === undefined) {
      tail = new Tail();
      this.#tails.set(volumeId, tail);
    }
    return tail;
  }

  /** Everything published up to `position` of the journal's stream is in the tail. */
  async reached(position: number): Promise<void> {
    if (this.#journal !== null) return this.#journal.reached(position);
    throw new MidmirrorError('unavailable', 'the mapping index is starting; try again');
  }

  /** How far its consumers are behind: in positions of the stream, and in time for what was written. */
  async reportLags(report: Report): Promise<void> {
    const lagSeconds = 'midmirror_events_lag_seconds';
    report(lagSeconds, { consumer: JOURNAL, since: 'stored' }, this.#lag.sinceStored);
    report(lagSeconds, { consumer: JOURNAL, since: 'durable' }, this.#lag.sinceDurable);
    const { bus } = this.#context;
    const messages = 'midmirror_events_lag_messages';
    const journal = (await bus.lastPosition(Streams.journal)) - (this.#journal?.position ?? 0);
    const timeline = (await bus.lastPosition(Streams.timeline)) - (this.#timeline?.position ?? 0);
    report(messages, { consumer: JOURNAL }, Math.max(0, journal));
    report(messages, { consumer: TIMELINE }, Math.max(0, timeline));
  }

  /** Activity of the writes that are in no run yet. */
  activityOf(volumeId: string): Activity[] {
    const minutes = new Map<bigint, Activity>();
    for (const segment of this.tail(volumeId).segments) {
      for (const { batch, bytes, at } of batchesOf(segment))
        for (const d of descriptorsOf(bytes, at, batch)) count(minutes, batch, d);
    }
    return [...minutes.values()];
  }

  async #traced(message: BusMessage, handle: () => Promise<void>): Promise<void> {
    const type = message.headers['ce-type'] ?? '';
    await asStep(this.#context.telemetry, traceparentOf(message), `index ${type}`, handle);
  }

  async #descriptors(message: BusMessage): Promise<void> {
    const { volumeId, batches, durableNs } = decodeDescriptors(message);
    const segment = segmentOf(batches);
    if (segment !== null && (await this.#isWanted(volumeId, segment))) {
      const news = this.tail(volumeId).add(message.position, batches);
      const { telemetry, clock } = this.#context;
      if (telemetry.on && news !== null && message.position > this.#endAtStart)
        this.#lag.handled(news.bytes, durableNs, clock.nowNs());
    }
    this.#seen = message.position;
  }

  /** Not of a segment whose run is stored, or that has left the ring, nor of a volume that is gone. */
  async #isWanted(volumeId: string, segment: number): Promise<boolean> {
    const known = this.#tails.get(volumeId);
    if (known?.isDone(segment) === true) return false;
    if (known?.segment(segment) !== undefined) return true;
    const { db } = this.#context.catalog;
    const volume = await db.selectFrom('volume').select('id').where('id', '=', volumeId).executeTakeFirst();
    if (volume === undefined) return false;
    const recycled = await this.#position(recycledName(volumeId));
    const run = await runOf(db, volumeId, 'forward', segment);
    const tail = this.tail(volumeId);
    tail.recycled(recycled);
    if (run !== undefined) tail.drop(segment);
    return true;
  }

  async #event(event: DomainEvent, position: number): Promise<void> {
    const { catalog } = this.#context;
    if (event.type === 'segment.sealed') return await this.#sealed(event.volumeId, event.data, position);
    if (event.type === 'segment.recycled')
      return await this.#recycled(event.volumeId, event.data.segment, position);
    if (event.type === 'volume.deleted') {
      await this.#context.deleted(event.volumeId);
      this.#tails.delete(event.volumeId);
      await this.#context.bus.purge(Streams.journal, journalSubject(event.volumeId), Number.MAX_SAFE_INTEGER);
    }
    await catalog.transaction(async (tx) => {
      await storePositions(tx, { [TIMELINE]: position });
      if (event.type === 'volume.deleted')
        await tx.deleteFrom('position').where('projector', '=', recycledName(event.volumeId)).execute();
    });
    if (event.type === 'snapshot.closed') this.#context.changed(event.volumeId, 'backward', 'end');
    if (event.type === 'snapshot.dropped') this.#context.changed(event.volumeId, 'backward', 'anywhere');
  }

  async #sealed(volumeId: string, told: Sealed, position: number): Promise<void> {
    for (const { segment } of this.tail(volumeId).segments)
      if (segment < told.segment) await this.#storeUntold(volumeId, segment);
    const { segment, firstSeq, lastSeq } = told;
    const known = await runOf(this.#context.catalog.db, volumeId, 'forward', segment);
    if (known?.from_seq === firstSeq && known.to_seq === lastSeq)
      return await this.#learnt(volumeId, segment, position);
    await this.#withPieces(volumeId, async (pieces) => {
      const footer = await this.#footer(pieces, volumeId, told);
      if (footer === 'displaced')
        return await this.#context.catalog.transaction((tx) => storePositions(tx, { [TIMELINE]: position }));
      await this.#store(pieces, volumeId, segment, footer, { [TIMELINE]: position });
    });
  }

  /**
   * A segment before one that was sealed, of which nobody told, or somebody who had lost the volume and told of another
   * end. They are stored in their order: the one at hand has the end that its next one follows.
   */
  async #storeUntold(volumeId: string, segment: number): Promise<void> {
    await this.#withPieces(volumeId, async (pieces) => {
      const reader = await pieces.segment(segment).catch(() => null);
      const footer = (await reader?.footer().catch(() => null)) ?? null;
      if (footer === null) return;
      const { mim_seq } = await volumeById(this.#context.catalog.db, volumeId);
      // Free for other writes, or soon: no run is needed of it.
      if (footer.lastSeq <= mim_seq) this.tail(volumeId).drop(segment);
      else await this.#store(pieces, volumeId, segment, footer, {});
    });
  }

  async #withPieces(volumeId: string, act: (pieces: PieceReader) => Promise<void>): Promise<void> {
    const { files, poolDirectory } = this.#context;
    const pieces = new PieceReader(files, volumePaths(`${poolDirectory}/volumes/${volumeId}`));
    try {
      await act(pieces);
    } finally {
      await pieces.close();
    }
  }

  /** `footer` null: it is gone already. */
  async #store(
    pieces: PieceReader,
    volumeId: string,
    segment: number,
    footer: SegmentFooter | null,
    positions: Record<string, number>,
  ): Promise<void> {
    const activity = footer === null ? [] : await this.#activity(pieces, volumeId, footer);
    await this.#context.closed(volumeId, segment);
    await this.#context.catalog.transaction(async (tx) => {
      if (footer !== null) {
        const run = {
          volume_id: volumeId,
          side: 'forward',
          source: segment,
          snapshot: 0,
          from_seq: footer.firstSeq,
          to_seq: footer.lastSeq,
          extents: footer.extents.size,
          data_bytes: 0,
        };
        const isNew = await insertRun(tx, run, footer.extents);
        // Stored anew: it was counted then.
        if (isNew) for (const minute of activity) await addActivity(tx, volumeId, minute);
      }
      const resumeAfter = this.#resumeAfter(volumeId, segment);
      await storePositions(tx, { ...positions, [JOURNAL]: resumeAfter });
    });
    this.tail(volumeId).drop(segment);
    this.#context.changed(volumeId, 'forward', 'end');
  }

  /** Told again (a restart tells of all that it finds): its run stays, with all that was made from it. */
  async #learnt(volumeId: string, segment: number, position: number): Promise<void> {
    const resumeAfter = this.#resumeAfter(volumeId, segment);
    await this.#context.catalog.transaction((tx) =>
      storePositions(tx, { [TIMELINE]: position, [JOURNAL]: resumeAfter }),
    );
    this.tail(volumeId).drop(segment);
  }

  /**
   * Null: the segment has been recycled since, or its volume deleted. `displaced`: whoever told of it had lost the volume,
   * and the pool has another segment of that number, or none; what of it is real comes from the one who took it over.
   */
  async #footer(
    pieces: PieceReader,
    volumeId: string,
    { segment, epoch, lastSeq }: Sealed,
  ): Promise<SegmentFooter | null | 'displaced'> {
    try {
      const reader = await pieces.segment(segment);
      if (reader.header.epoch > epoch) return 'displaced';
      const footer = await reader.footer();
      if (footer !== null) return footer;
      throw new MidmirrorError('corrupt', `segment ${segment} was sealed and has no footer`);
    } catch (error) {
      const { catalog, files, poolDirectory, log } = this.#context;
      const volume = await volumeById(catalog.db, volumeId).catch((failure: unknown) => {
        if (failure instanceof MidmirrorError && failure.code === 'not-found') return null;
        throw failure;
      });
      if (volume === null || volume.mim_seq >= lastSeq) return null;
      log(`volume ${volume.name}: ${messageOf(error)}`);
      const { claims } = volumePaths(`${poolDirectory}/volumes/${volumeId}`);
      if ((await newestClaim(files, claims)) > epoch) return 'displaced';
      throw error;
    }
  }

  async #activity(pieces: PieceReader, volumeId: string, footer: SegmentFooter): Promise<Activity[]> {
    const minutes = new Map<bigint, Activity>();
    const writes = footer.lastSeq - footer.firstSeq + 1;
    // This event may come before the last of the descriptors, which were published first: to wait for them costs
    // less than to read the segment.
    if (this.#writesIn(volumeId, footer.segment) !== writes)
      await this.reached(await this.#context.bus.lastPosition(Streams.journal));
    const tail = this.tail(volumeId).segment(footer.segment);
    if (tail !== undefined && this.#writesIn(volumeId, footer.segment) === writes) {
      for (const { batch, bytes, at } of batchesOf(tail))
        for (const d of descriptorsOf(bytes, at, batch)) count(minutes, batch, d);
    } else {
      const reader = await pieces.segment(footer.segment);
      for await (const { batch, bytes } of reader.batches(0, footer.lastSeq))
        for (const d of descriptorsOf(bytes, 0, batch)) count(minutes, batch, d);
    }
    return [...minutes.values()];
  }

  /** Of a segment, how many are in the tail. */
  #writesIn(volumeId: string, segment: number): number {
    const tail = this.tail(volumeId).segment(segment);
    let writes = 0;
    if (tail !== undefined) for (const { batch } of batchesOf(tail)) writes += batch.writeCount;
    return writes;
  }

  async #recycled(volumeId: string, last: number, position: number): Promise<void> {
    const { catalog, bus } = this.#context;
    const gone = await catalog.transaction(async (tx) => {
      await storePositions(tx, { [TIMELINE]: position });
      // Not what the MIM lacks, whoever says so.
      const kept = await tx
        .selectFrom('run')
        .innerJoin('volume', 'volume.id', 'run.volume_id')
        .select((e) => e.fn.min('run.source').as('first'))
        .where('volume_id', '=', volumeId)
        .where('side', '=', 'forward')
        .where('level', '=', 0)
        .whereRef('run.to_seq', '>', 'volume.mim_seq')
        .executeTakeFirst();
      const upTo = Math.min(last, (kept?.first ?? Number.POSITIVE_INFINITY) - 1);
      const sources = await deleteForwardRuns(tx, volumeId, upTo);
      if (sources.length > 0) await storePositions(tx, { [recycledName(volumeId)]: Math.max(...sources) });
      return sources;
    });
    for (const source of gone) await this.#context.closed(volumeId, source);
    this.tail(volumeId).recycled(Math.max(0, ...gone));
    const oldest = this.tail(volumeId).firstPosition;
    await bus.purge(Streams.journal, journalSubject(volumeId), (oldest ?? this.#seen + 1) - 1);
  }

  /** Where the journal's stream must be read from again once `segment` of a volume is in a run. */
  #resumeAfter(volumeId: string, segment: number): number {
    let first = this.#seen + 1;
    for (const [id, tail] of this.#tails) {
      for (const other of tail.segments)
        if (id !== volumeId || other.segment !== segment) first = Math.min(first, other.firstPosition);
    }
    return first - 1;
  }

  async #position(projector: string): Promise<number> {
    const row = await this.#context.catalog.db
      .selectFrom('position')
      .select('position')
      .where('projector', '=', projector)
      .executeTakeFirst();
    return row?.position ?? 0;
  }
}

/** Of packed batches; null: there is none. */
function segmentOf(batches: Uint8Array): number | null {
  for (const { batch } of packedBatches(batches)) return batch.segment;
  return null;
}

/** The catalogue's name for the last segment of a volume that has left the ring. */
function recycledName(volumeId: string): string {
  return `mapping-index.recycled.${volumeId}`;
}

function count(minutes: Map<bigint, Activity>, batch: Batch, d: Descriptor): void {
  if (d.kind === DescriptorKind.mark) return;
  const minuteNs = batch.timeNs - (batch.timeNs % MINUTE_NS);
  let minute = minutes.get(minuteNs);
  if (minute === undefined) {
    minute = { minuteNs, writes: 0, bytes: 0, firstSeq: d.seq, lastSeq: d.seq };
    minutes.set(minuteNs, minute);
  }
  if (!d.continues) minute.writes += 1;
  minute.bytes += d.length;
  minute.lastSeq = d.seq;
}

async function addActivity(tx: CatalogTransaction, volumeId: string, minute: Activity): Promise<void> {
  const row = {
    volume_id: volumeId,
    minute_ns: toNs(minute.minuteNs),
    writes: minute.writes,
    bytes: minute.bytes,
    first_seq: minute.firstSeq,
    last_seq: minute.lastSeq,
  };
  await tx
    .insertInto('activity')
    .values(row)
    .onConflict((conflict) =>
      conflict.columns(['volume_id', 'minute_ns']).doUpdateSet((e) => ({
        writes: e('activity.writes', '+', minute.writes),
        bytes: e('activity.bytes', '+', minute.bytes),
        last_seq: minute.lastSeq,
      })),
    )
    .execute();
}

async function storePositions(tx: CatalogTransaction, positions: Record<string, number>): Promise<void> {
  await tx
    .insertInto('position')
    .values(Object.entries(positions).map(([projector, position]) => ({ projector, position })))
    .onConflict((conflict) =>
      conflict.column('projector').doUpdateSet((e) => ({ position: e.ref('excluded.position') })),
    )
    .execute();
}
