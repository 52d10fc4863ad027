// What the mapping index knows of one volume: where each address lay at each retained point, and the mirrors
// that are open. Opening, resolving and what syncs ask of it take turns, so that a map is never built from a
// catalogue that is half a step ahead.
import { randomUUID } from 'node:crypto';
import { type Clock, MidmirrorError, messageOf, Turns } from '@midmirror/basis';
import {
  type Catalog,
  type CatalogReader,
  type CatalogTransaction,
  coveringRuns,
  loadRun,
  pagesOf,
  pinPoint,
  putPage,
  RunGoneError,
  type PinRequest,
  runOf,
  segmentsFrom,
  snapshotOfSeq,
  type StoredRun,
  unpinPoint,
  type VolumeRow,
  volumeById,
  windowSpan,
} from '@midmirror/catalog';
import type { OpenMirrorView } from '@midmirror/events';
import { ExtentMap } from '@midmirror/extent-map';
import { descriptorsOf, putDescriptor } from '@midmirror/journal';
import {
  LostPieceError,
  MimImage,
  MimStateFile,
  MimWatch,
  PieceReader,
  type PoolFiles,
  type VolumePaths,
  volumePaths,
} from '@midmirror/pool';
import { type PageCache, RunLayers } from '@midmirror/runs';
import { TreeVrmo } from '@midmirror/vrmo';
import { DividedLayers } from './divided-layers.ts';
import { limits } from './limits.ts';
import { Mirror, type Prepared } from './mirror.ts';
import { type Places, TreePlaces } from './places.ts';
import { batchesOf, lastSeqOf, type Tail, type TailSegment } from './tail.ts';
import type { TreeBudget } from './tree-budget.ts';

export interface IndexContext {
  files: PoolFiles;
  catalog: Catalog;
  clock: Clock;
  /** Goes on while the process is stopped. */
  monotonicMs: () => number;
  pages: PageCache;
  trees: TreeBudget;
  log: (message: string) => void;
}

interface OpenMirror {
  mirror: Mirror;
  side: Side;
  /** Backward: the runs of level 0 that its places know of: their number, and the greatest id. */
  known: { count: number; lastId: number };
  /** Trees made of it so far. */
  trees: number;
  /** Lets go of what its tree may hold, also one that is being built. */
  fell: () => void;
  timeNs: bigint;
  readers: number;
  pinId: string;
}

interface Found extends Prepared {
  places: Layers;
  side: Side;
  known: OpenMirror['known'];
}

/** What a point lies in before it has a tree. */
type Layers = RunLayers | DividedLayers;

/** What a point is made of, as far as the catalogue tells. */
interface Covering {
  /** The first wins. */
  covering: StoredRun[];
  /** The run of the segment whose writes belong to it in part. */
  cut: StoredRun | null;
  /** Segments that are in no run yet. */
  tail: readonly TailSegment[];
  /** Null: forward. */
  known: OpenMirror['known'] | null;
  /** The MIM's point. */
  mimSeq: number;
  safeToSeq: number;
}

/** Files of a MIM, open. */
interface MimFiles {
  image: MimImage;
  state: MimStateFile;
}

/** `forward`: at or after the MIM's point; `backward`: a snapshot. */
type Side = 'forward' | 'backward';

export class VolumeIndex {
  readonly id: string;
  readonly name: string;
  readonly sizeBytes: number;
  readonly paths: VolumePaths;
  readonly pieces: PieceReader;
  readonly tail: Tail;
  readonly turns = new Turns();
  readonly #context: IndexContext;
  readonly #mim: MimImage;
  readonly #mimState: MimStateFile;
  readonly #watch: MimWatch;
  readonly #mirrors = new Map<number, OpenMirror>();
  readonly #planting = new Set<Promise<void>>();

  private constructor(
    volume: VolumeRow,
    poolDirectory: string,
    tail: Tail,
    context: IndexContext,
    mim: MimFiles,
  ) {
    this.id = volume.id;
    this.name = volume.name;
    this.sizeBytes = volume.size_bytes;
    this.paths = volumePaths(`${poolDirectory}/volumes/${volume.id}`);
    this.pieces = new PieceReader(context.files, this.paths);
    this.tail = tail;
    this.#context = context;
    this.#mim = mim.image;
    this.#mimState = mim.state;
    this.#watch = new MimWatch(() => mim.state.readNow(), context.monotonicMs);
  }

  static async open(
    volume: VolumeRow,
    poolDirectory: string,
    tail: Tail,
    context: IndexContext,
  ): Promise<VolumeIndex> {
    const paths = volumePaths(`${poolDirectory}/volumes/${volume.id}`);
    const state = await MimStateFile.open(context.files, paths);
    const image = await MimImage.open(context.files, paths).catch(async (error: unknown) => {
      await state.close();
      throw error;
    });
    const mim = { image, state };
    return new VolumeIndex(volume, poolDirectory, tail, context, mim);
  }

  get pages(): PageCache {
    return this.#context.pages;
  }

  get mirrors(): OpenMirrorView[] {
    return [...this.#mirrors.values()].map(({ mirror, timeNs, readers, trees }) => ({
      seq: mirror.seq,
      timeNs: timeNs.toString(),
      readers,
      extents: mirror.places.extentCount,
      ...kindOf(mirror.places),
      memoryBytes: mirror.places.memoryBytes,
      trees,
    }));
  }

  /** In a turn. The mirror of a point, pinned until `release`. Throws `point-unavailable`. */
  async openMirror(
    seq: number,
    timeNs: bigint,
    holder: string,
  ): Promise<{ mirror: Mirror; release: () => Promise<void> }> {
    let open = this.#mirrors.get(seq);
    if (open === undefined) {
      if (this.#mirrors.size >= limits.mirrorsPerVolumeMax) {
        throw new MidmirrorError(
          'unavailable',
          `${limits.mirrorsPerVolumeMax} points of volume "${this.name}" are open already`,
          {
            hint: 'close a mirror first',
          },
        );
      }
      const pinId = `${holder}-${randomUUID()}`;
      const sinceNs = this.#context.clock.nowNs();
      try {
        const pin = { id: pinId, volumeId: this.id, seq, holder, sinceNs };
        const { side, known, ...prepared } = await this.#find(seq, pin);
        const mirror = new Mirror(seq, this.sizeBytes, prepared, {
          ...{ mim: this.#mim, watch: this.#watch, pieces: this.pieces },
          renew: (generation, lost) => this.#renew(seq, generation, lost),
        });
        open = { mirror, side, known, trees: 0, fell: () => {}, timeNs, readers: 0, pinId };
      } catch (error) {
        await unpinPoint(this.#context.catalog.db, pinId);
        throw error;
      }
      this.#mirrors.set(seq, open);
      this.#plant(open);
    }
    const opened = open;
    opened.readers += 1;
    let released = false;
    return {
      mirror: opened.mirror,
      release: async () => {
        if (released) return;
        released = true;
        opened.readers -= 1;
        if (opened.readers > 0) return;
        this.#mirrors.delete(seq);
        opened.fell();
        await unpinPoint(this.#context.catalog.db, opened.pinId);
      },
    };
  }

  /** Sync step 5: what the sync has saved is read from where it was saved; reads by the old maps have ended. */
  prepare(syncId: number): Promise<number> {
    return this.turns.take(async () => {
      const { db } = this.#context.catalog;
      const sync = await db
        .selectFrom('sync')
        .selectAll()
        .where('volume_id', '=', this.id)
        .where('sync_id', '=', syncId)
        .executeTakeFirst();
      // Asked long ago: it is over, and mirrors have found it out or will.
      if (sync === undefined) return this.#mirrors.size;
      const switching: Promise<void>[] = [];
      for (const open of this.#mirrors.values())
        if (open.mirror.seq < sync.to_seq)
          switching.push(this.#switch(open, await this.#follow(open, sync.to_seq)));
      await Promise.all(switching);
      return this.#mirrors.size;
    });
  }

  /** The MIM has reached its new point, or runs were merged: maps let go of what will be recycled or removed. */
  advance(): Promise<number> {
    return this.turns.take(async () => {
      const { db } = this.#context.catalog;
      const { mim_seq } = await volumeById(db, this.id);
      await this.#mim.reload();
      const held = await db
        .selectFrom('segment')
        .select((e) => e.fn.max('segment').as('last'))
        .where('volume_id', '=', this.id)
        .where('last_seq', '<=', mim_seq)
        .executeTakeFirst();
      const switching: Promise<void>[] = [];
      for (const open of this.#mirrors.values()) {
        const { places, safeToSeq } = open.mirror;
        let prepared: Prepared = { places, safeToSeq };
        if (!(places instanceof TreePlaces)) prepared = await this.#again(open);
        else if (open.side === 'forward' && open.mirror.seq >= mim_seq) {
          if (held?.last != null) places.vrmo.moveOntoMim(held.last);
        } else if (open.side === 'forward' || !(await this.#hasAllRuns(open)))
          prepared = await this.#again(open);
        switching.push(this.#switch(open, prepared));
      }
      await Promise.all(switching);
      return this.#mirrors.size;
    });
  }

  /**
   * In a turn. What covers a point, at one moment: a drop or a sync between the looks would leave what it moved in
   * neither. With `pin`, pinned at that moment. Throws `point-unavailable`.
   */
  async #find(seq: number, pin?: PinRequest): Promise<Found> {
    for (let tries = 1; ; tries += 1) {
      const covering = await this.#covering(seq, tries === 1 ? pin : undefined);
      // After the look at the MIM's point: a sync that ended before it has marked granules that the map leans on.
      await this.#mim.reload();
      const { known, safeToSeq } = covering;
      const side = known === null ? 'forward' : 'backward';
      try {
        const places = await this.#layers(covering, seq);
        return { places, safeToSeq, side, known: known ?? { count: 0, lastId: 0 } };
      } catch (error) {
        // The segment has left the ring since.
        if (!(error instanceof LostPieceError) || tries === limits.readTriesMax) throw error;
        if (!(await this.isGone(seq, error))) throw error;
      }
    }
  }

  async #covering(seq: number, pin?: PinRequest): Promise<Covering> {
    // Before the runs: what is sealed meanwhile leaves the tail for them.
    const tail = this.tail.segments;
    return await this.#context.catalog.transaction(async (tx) => {
      if (pin !== undefined) await pinPoint(tx, pin);
      const { mim_seq, synced_seq } = await this.#state(tx);
      return seq >= (synced_seq ?? mim_seq)
        ? await this.#forwardRuns(tx, mim_seq, seq, tail)
        : await this.#backwardRuns(tx, mim_seq, synced_seq ?? mim_seq, seq);
    });
  }

  async #layers({ covering, cut, tail, mimSeq }: Covering, seq: number): Promise<Layers> {
    const { pages } = this.#context;
    const top = new ExtentMap();
    for (const segment of tail) putTail(segment, mimSeq, seq, top);
    if (cut === null) return new RunLayers(covering, top, pages);
    const dataAfter = await this.pieces.inSegment(cut.source, (reader) => reader.dataAfter(seq));
    const whole = new RunLayers([cut, ...covering], top, pages);
    return new DividedLayers(whole, cut.source, dataAfter, async () => {
      const exact = new ExtentMap();
      await this.#partOfSegment(cut.source, seq, exact);
      for (const segment of tail) putTail(segment, mimSeq, seq, exact);
      return new RunLayers(covering, exact, pages);
    });
  }

  /** The MIM's point, and the target of a sync that is prepared: from then on older points can't be read off it. */
  #state(db: CatalogReader): Promise<{ mim_seq: number; synced_seq: number | null }> {
    return db
      .selectFrom('volume')
      .leftJoin('sync', (join) =>
        join.onRef('sync.volume_id', '=', 'volume.id').on('sync.state', '=', 'prepared'),
      )
      .select(['volume.mim_seq', 'sync.to_seq as synced_seq'])
      .where('volume.id', '=', this.id)
      .executeTakeFirstOrThrow();
  }

  /** What covers the writes in `(mimSeq, seq]`: runs, the newest first, and over them what is in no run as a whole. */
  async #forwardRuns(
    tx: CatalogTransaction,
    mimSeq: number,
    seq: number,
    tail: readonly TailSegment[],
  ): Promise<Covering> {
    const { first, last, cut } = await windowSpan(tx, this.id, mimSeq, seq);
    const covering =
      first === null || last === null ? [] : await coveringRuns(tx, this.id, 'forward', first, last);
    const stored = new Set(tail.length === 0 ? [] : await segmentsFrom(tx, this.id, tail[0]!.segment));
    const unstored = tail.filter(({ segment }) => !stored.has(segment));
    const divided = cut === null ? undefined : await runOf(tx, this.id, 'forward', cut);
    return {
      ...{ covering: covering.reverse(), cut: divided ?? null, tail: unstored, known: null, mimSeq },
      // Of what is newer on the MIM, something would have to be saved first.
      safeToSeq: seq,
    };
  }

  /** What covers a snapshot: runs, the oldest first. */
  async #backwardRuns(
    tx: CatalogTransaction,
    mimSeq: number,
    savedToSeq: number,
    seq: number,
  ): Promise<Covering> {
    const snapshot = await this.#snapshotAt(tx, seq);
    const covering = await coveringRuns(tx, this.id, 'backward', snapshot, Number.MAX_SAFE_INTEGER);
    const known = await this.#runsFrom(tx, snapshot, null);
    return { covering, cut: null, tail: [], known, mimSeq, safeToSeq: savedToSeq };
  }

  /** A segment has gone from the ring: its file will hold other writes. */
  async forgetSegment(segment: number): Promise<void> {
    await this.pieces.forget(false, segment);
  }

  async close(): Promise<void> {
    for (const open of this.#mirrors.values()) {
      open.fell();
      await unpinPoint(this.#context.catalog.db, open.pinId);
    }
    this.#mirrors.clear();
    // Trees that are being built see that their mirror is gone.
    await Promise.all(this.#planting);
    await this.pieces.close();
    await this.#mim.close();
    await this.#mimState.close();
  }

  /** In a turn. Its places as they are now, from the runs; a tree of them follows. */
  async #again(open: OpenMirror): Promise<Prepared> {
    const { side, known, ...prepared } = await this.#find(open.mirror.seq);
    open.side = side;
    open.known = known;
    return prepared;
  }

  /** In a turn. Before a sync to `toSeq` changes the MIM under a mirror: its places with what the sync has saved. */
  async #follow(open: OpenMirror, toSeq: number): Promise<Prepared> {
    const { places } = open.mirror;
    if (open.side === 'forward' || !(places instanceof TreePlaces)) return await this.#again(open);
    const { db } = this.#context.catalog;
    const snapshot = await this.#snapshotAt(db, open.mirror.seq);
    const added = await db
      .selectFrom('run')
      .selectAll()
      .where('volume_id', '=', this.id)
      .where('side', '=', 'backward')
      .where('level', '=', 0)
      .where('snapshot', '>=', snapshot)
      .where('id', '>', open.known.lastId)
      .orderBy('id')
      .execute();
    for (const run of added) {
      const saved = new ExtentMap();
      await loadRun(db, run, saved, true);
      places.vrmo.moveOffMim(saved);
      open.known = { count: open.known.count + 1, lastId: run.id };
    }
    return { places, safeToSeq: Math.max(open.mirror.safeToSeq, toSeq) };
  }

  async #hasAllRuns(open: OpenMirror): Promise<boolean> {
    const { db } = this.#context.catalog;
    const snapshot = await this.#snapshotAt(db, open.mirror.seq);
    const { count } = await this.#runsFrom(db, snapshot, open.known.lastId);
    return count === open.known.count;
  }

  /** The snapshot of a point. Throws `point-unavailable`. */
  async #snapshotAt(db: CatalogReader, seq: number): Promise<number> {
    const row = await snapshotOfSeq(db, this.id, seq);
    if (row !== undefined) return row.snapshot;
    throw new MidmirrorError(
      'point-unavailable',
      `write ${seq} of volume "${this.name}" is no longer a point of its own`,
    );
  }

  async #runsFrom(db: CatalogReader, snapshot: number, lastId: number | null): Promise<OpenMirror['known']> {
    const row = await db
      .selectFrom('run')
      .select((e) => [e.fn.countAll<number>().as('count'), e.fn.max('id').as('lastId')])
      .where('volume_id', '=', this.id)
      .where('side', '=', 'backward')
      .where('level', '=', 0)
      .where('snapshot', '>=', snapshot)
      .$if(lastId !== null, (query) => query.where('id', '<=', lastId))
      .executeTakeFirstOrThrow();
    return { count: Number(row.count), lastId: row.lastId ?? 0 };
  }

  #switch(open: OpenMirror, prepared: Prepared): Promise<void> {
    const done = open.mirror.switchTo(prepared);
    this.#plant(open);
    return done;
  }

  /**
   * A mirror's places are those of before: runs have been replaced, a sync went by, or a piece can't be read. False: they
   * are not, and the piece is damaged.
   */
  #renew(seq: number, generation: number, lost: LostPieceError | null): Promise<boolean> {
    return this.turns.take(async () => {
      const open = this.#mirrors.get(seq);
      if (open === undefined) throw new MidmirrorError('unavailable', `the mirror of write ${seq} is closed`);
      if (open.mirror.generation !== generation) return true;
      if (lost !== null && !(await this.isGone(seq, lost))) return false;
      await this.#switch(open, await this.#again(open));
      return true;
    });
  }

  /** Whether the places of a point, as they are now, need not name a piece's file: it may have been given to others. */
  async isGone(seq: number, { backward, source }: LostPieceError): Promise<boolean> {
    const { db } = this.#context.catalog;
    if (backward) return (await runOf(db, this.id, 'backward', source)) === undefined;
    const { mim_seq, synced_seq } = await this.#state(db);
    if (seq < (synced_seq ?? mim_seq)) return true;
    const run = await runOf(db, this.id, 'forward', source);
    if (run !== undefined) return run.to_seq <= mim_seq;
    const unstored = this.tail.segment(source);
    return unstored === undefined || lastSeqOf(unstored) <= mim_seq;
  }

  // ── trees ──────────────────────────────────────────────────────────────────────────────────────────────

  /** A mirror on runs gets a tree of its own in the background, if there is room for it. */
  #plant(open: OpenMirror): void {
    const { places } = open.mirror;
    if (!(places instanceof RunLayers || places instanceof DividedLayers)) return;
    open.fell();
    const fell = this.#context.trees.take(places.extentCount);
    if (fell === null) return;
    open.fell = fell;
    const planting: Promise<void> = this.#grow(open, places, open.mirror.generation)
      .catch((error: unknown) => {
        fell();
        // Reads tell of the same; a run that has gone has been replaced, and the read that finds it out goes on.
        if (!(error instanceof RunGoneError))
          this.#context.log(`volume ${this.name}: no tree for write ${open.mirror.seq}: ${messageOf(error)}`);
      })
      .finally(() => this.#planting.delete(planting));
    this.#planting.add(planting);
  }

  async #grow(open: OpenMirror, places: Layers, generation: number): Promise<void> {
    const stale = (): boolean =>
      open.mirror.generation !== generation || this.#mirrors.get(open.mirror.seq) !== open;
    const map = new ExtentMap();
    for (const run of places.runs.toReversed()) {
      for await (const page of pagesOf(this.#context.catalog.db, run)) {
        if (stale()) return;
        putPage(page, map, false);
      }
    }
    // Not before somebody has stayed as long as that took.
    const { top } = places instanceof DividedLayers ? await places.exact() : places;
    for (const c = top.cursor(); c.valid; c.next())
      map.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
    // No sync, drop or recycling comes between the look and the switch.
    await this.turns.take(async () => {
      if (stale()) return;
      open.trees += 1;
      const tree = new TreePlaces(new TreeVrmo(map, { sizeBytes: this.sizeBytes }));
      await this.#switch(open, { places: tree, safeToSeq: open.mirror.safeToSeq });
    });
  }

  async #partOfSegment(segment: number, seq: number, map: ExtentMap): Promise<void> {
    await this.pieces.inSegment(segment, async (reader) => {
      for await (const { batch, bytes } of reader.batches(0, seq)) {
        for (const d of descriptorsOf(bytes, 0, batch)) if (d.seq <= seq) putDescriptor(map, d, segment);
      }
    });
  }
}

/** What lies in `(afterSeq, seq]`. */
function putTail(segment: TailSegment, afterSeq: number, seq: number, map: ExtentMap): void {
  for (const { batch, bytes, at } of batchesOf(segment)) {
    if (batch.firstSeq > seq) return;
    for (const d of descriptorsOf(bytes, at, batch))
      if (d.seq > afterSeq && d.seq <= seq) putDescriptor(map, d, segment.segment);
  }
}

function kindOf(places: Places): Pick<OpenMirrorView, 'kind' | 'nodes' | 'conversions'> {
  if (!(places instanceof TreePlaces)) return { kind: 'runs', nodes: 0, conversions: 0 };
  const { kind, nodes, conversions } = places.vrmo;
  return { kind, nodes, conversions };
}
