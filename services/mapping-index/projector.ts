// Learns from the journal's and the timeline's events: descriptors go to the tails, a sealed segment's footer
// becomes a run, a recycled segment's run goes. The position in the journal's stream is that of the oldest
// descriptor not yet in a run, and is stored with the runs.
import { MidmirrorError, messageOf } from '@midmirror/basis';
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
  type SegmentFooter,
} from '@midmirror/journal';
import { PieceReader, type PoolFiles, volumePaths } from '@midmirror/pool';
import type { Telemetry } from '@midmirror/telemetry';
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

export interface ProjectorContext {
  files: PoolFiles;
  catalog: Catalog;
  bus: Bus;
  poolDirectory: string;
  log: (message: string) => void;
  telemetry: Telemetry;
  /** Before the segment's file number is forgotten for good. */
  recycled: (volumeId: string, segment: number) => Promise<void>;
  deleted: (volumeId: string) => Promise<void>;
  /** Runs of a side have come behind all others, or come or gone anywhere. */
  changed: (volumeId: string, side: 'forward' | 'backward', where: 'end' | 'anywhere') => void;
}

export class Projector {
  readonly #context: ProjectorContext;
  readonly #tails = new Map<string, Tail>();
  #seen = 0;
  #journal!: Subscription;
  #timeline!: Subscription;

  constructor(context: ProjectorContext) {
    this.#context = context;
  }

  async start(): Promise<void> {
    const { bus } = this.#context;
    this.#seen = await this.#position(JOURNAL);
    this.#journal = bus.consume({
      stream: Streams.journal,
      after: this.#seen,
      handler: (message) => this.#traced(message, async () => this.#descriptors(message)),
    });
    this.#timeline = bus.consume({
      stream: Streams.timeline,
      after: await this.#position(TIMELINE),
      handler: (message) => this.#traced(message, () => this.#event(eventOf(message), message.position)),
    });
    // What an earlier process sealed and did not publish is known by its end alone: no point is opened before that.
    await bus.ready();
    await this.#timeline.reached(await bus.lastPosition(Streams.timeline));
  }

  async stop(): Promise<void> {
    await this.#timeline.stop();
    await this.#journal.stop();
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
  reached(position: number): Promise<void> {
    return this.#journal.reached(position);
  }

  /** What each of its consumers has yet to handle, in positions of the stream. */
  async lags(): Promise<{ consumer: string; messages: number }[]> {
    const { bus } = this.#context;
    const journal = (await bus.lastPosition(Streams.journal)) - this.#journal.position;
    const timeline = (await bus.lastPosition(Streams.timeline)) - this.#timeline.position;
    return [
      { consumer: JOURNAL, messages: Math.max(0, journal) },
      { consumer: TIMELINE, messages: Math.max(0, timeline) },
    ];
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
    const span = this.#context.telemetry.continueSpan(traceparentOf(message), `index ${type}`);
    try {
      await handle();
      span.end();
    } catch (error) {
      span.end(error);
      throw error;
    }
  }

  #descriptors(message: BusMessage): void {
    const { volumeId, batches } = decodeDescriptors(message);
    this.tail(volumeId).add(message.position, batches);
    this.#seen = message.position;
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
    await catalog.transaction((tx) => storePositions(tx, { [TIMELINE]: position }));
    if (event.type === 'snapshot.closed') this.#context.changed(event.volumeId, 'backward', 'end');
    if (event.type === 'snapshot.dropped') this.#context.changed(event.volumeId, 'backward', 'anywhere');
  }

  async #sealed(
    volumeId: string,
    sealed: { segment: number; firstSeq: number; lastSeq: number },
    position: number,
  ): Promise<void> {
    const { catalog, files, poolDirectory } = this.#context;
    const { segment, firstSeq, lastSeq } = sealed;
    const known = await runOf(catalog.db, volumeId, 'forward', segment);
    if (known?.from_seq === firstSeq && known.to_seq === lastSeq)
      return await this.#learnt(volumeId, segment, position);
    const pieces = new PieceReader(files, volumePaths(`${poolDirectory}/volumes/${volumeId}`));
    try {
      const footer = await this.#footer(pieces, volumeId, segment, lastSeq);
      const activity = footer === null ? [] : await this.#activity(pieces, volumeId, footer);
      await catalog.transaction(async (tx) => {
        if (footer !== null) {
          const run = {
            volume_id: volumeId,
            side: 'forward',
            source: segment,
            snapshot: 0,
            from_seq: firstSeq,
            to_seq: lastSeq,
            extents: footer.extents.size,
            data_bytes: 0,
          };
          const isNew = await insertRun(tx, run, footer.extents);
          // Stored anew: it was counted then.
          if (isNew) for (const minute of activity) await addActivity(tx, volumeId, minute);
        }
        const resumeAfter = this.#resumeAfter(volumeId, segment);
        await storePositions(tx, { [TIMELINE]: position, [JOURNAL]: resumeAfter });
      });
      this.tail(volumeId).drop(segment);
      this.#context.changed(volumeId, 'forward', 'end');
    } finally {
      await pieces.close();
    }
  }

  /** Told again (a restart tells of all that it finds): its run stays, with all that was made from it. */
  async #learnt(volumeId: string, segment: number, position: number): Promise<void> {
    const resumeAfter = this.#resumeAfter(volumeId, segment);
    await this.#context.catalog.transaction((tx) =>
      storePositions(tx, { [TIMELINE]: position, [JOURNAL]: resumeAfter }),
    );
    this.tail(volumeId).drop(segment);
  }

  /** Null: the segment has been recycled since, or its volume deleted. */
  async #footer(
    pieces: PieceReader,
    volumeId: string,
    segment: number,
    lastSeq: number,
  ): Promise<SegmentFooter | null> {
    try {
      const footer = await (await pieces.segment(segment)).footer();
      if (footer !== null) return footer;
      throw new MidmirrorError('corrupt', `segment ${segment} was sealed and has no footer`);
    } catch (error) {
      const volume = await volumeById(this.#context.catalog.db, volumeId).catch(() => null);
      if (volume === null || volume.mim_seq >= lastSeq) return null;
      this.#context.log(`volume ${volume.name}: ${messageOf(error)}`);
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
      return await deleteForwardRuns(tx, volumeId, last);
    });
    for (const source of gone) await this.#context.recycled(volumeId, source);
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
