// What the mapping index knows of one volume: where each address lay at each retained point, and the mirrors
// that are open. Opening, resolving and what syncs ask of it take turns, so that a map is never built from a
// catalogue that is half a step ahead.
import { randomUUID } from 'node:crypto';
import { type Clock, MidmirrorError, messageOf, Turns } from '@midmirror/basis';
import {
  type Catalog,
  type CatalogReader,
  type CatalogTransaction,
  fromNs,
  loadRun,
  pagesOf,
  pinPoint,
  putPage,
  RunGoneError,
  runsOf,
  type SnapshotRow,
  snapshotsOf,
  type StoredRun,
  unpinPoint,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import type { OpenMirrorView } from '@midmirror/events';
import { ExtentMap } from '@midmirror/extent-map';
import { descriptorsOf, putDescriptor } from '@midmirror/journal';
import { MimImage, PieceReader, type PoolFiles, type VolumePaths, volumePaths } from '@midmirror/pool';
import { coveringRuns, type PageCache, RunLayers } from '@midmirror/runs';
import { TreeVrmo } from '@midmirror/vrmo';
import { limits } from './limits.ts';
import { Mirror } from './mirror.ts';
import { type Places, TreePlaces } from './places.ts';
import { batchesOf, type Tail } from './tail.ts';
import type { TreeBudget } from './tree-budget.ts';

export interface IndexContext {
  files: PoolFiles;
  catalog: Catalog;
  clock: Clock;
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

interface Found {
  places: RunLayers;
  side: Side;
  known: OpenMirror['known'];
}

/** `forward`: at or after the MIM's point; `backward`: a snapshot. */
type Side = 'forward' | 'backward';

/** A consistent look at the catalogue. */
export interface VolumeView {
  volume: VolumeRow;
  /** Target of a sync that is prepared: from then on older points can't be read off the MIM. */
  syncedSeq: number;
  snapshots: SnapshotRow[];
}

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
  readonly #mirrors = new Map<number, OpenMirror>();
  readonly #planting = new Set<Promise<void>>();

  private constructor(
    volume: VolumeRow,
    poolDirectory: string,
    tail: Tail,
    context: IndexContext,
    mim: MimImage,
  ) {
    this.id = volume.id;
    this.name = volume.name;
    this.sizeBytes = volume.size_bytes;
    this.paths = volumePaths(`${poolDirectory}/volumes/${volume.id}`);
    this.pieces = new PieceReader(context.files, this.paths);
    this.tail = tail;
    this.#context = context;
    this.#mim = mim;
  }

  static async open(
    volume: VolumeRow,
    poolDirectory: string,
    tail: Tail,
    context: IndexContext,
  ): Promise<VolumeIndex> {
    const mim = await MimImage.open(context.files, volumePaths(`${poolDirectory}/volumes/${volume.id}`));
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

  /** Take a turn around it and what is built from it. */
  async view(): Promise<VolumeView> {
    return await this.#context.catalog.transaction(async (tx) => {
      const volume = await volumeById(tx, this.id);
      const sync = await tx
        .selectFrom('sync')
        .select('to_seq')
        .where('volume_id', '=', this.id)
        .where('state', '=', 'prepared')
        .executeTakeFirst();
      const snapshots = await snapshotsOf(tx, this.id);
      return { volume, syncedSeq: sync?.to_seq ?? volume.mim_seq, snapshots };
    });
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
      await this.#context.catalog.transaction((tx) =>
        pinPoint(tx, { id: pinId, volumeId: this.id, seq, holder, sinceNs: this.#context.clock.nowNs() }),
      );
      try {
        const { places, side, known } = await this.#find(seq);
        const mirror = new Mirror(seq, this.sizeBytes, places, this.#mim, this.pieces, () =>
          this.#refresh(seq),
        );
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
        .executeTakeFirstOrThrow();
      const switching: Promise<void>[] = [];
      for (const open of this.#mirrors.values())
        if (open.mirror.seq < sync.to_seq) switching.push(this.#switch(open, await this.#follow(open)));
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
        let { places } = open.mirror;
        if (!(places instanceof TreePlaces)) places = await this.#again(open);
        else if (open.side === 'forward' && open.mirror.seq >= mim_seq) {
          if (held?.last != null) places.vrmo.moveOntoMim(held.last);
        } else if (open.side === 'forward' || !(await this.#hasAllRuns(open)))
          places = await this.#again(open);
        switching.push(this.#switch(open, places));
      }
      await Promise.all(switching);
      return this.#mirrors.size;
    });
  }

  /** In a turn. What covers the writes in `(mim, seq]`: runs, the newest first, and over them what is in no run. */
  async #forwardLayers(view: VolumeView, seq: number): Promise<RunLayers> {
    // Before the runs: what is sealed meanwhile leaves the tail for them.
    const tail = this.tail.segments;
    const { runs, covering } = await this.#context.catalog.transaction((tx) =>
      this.#forwardRuns(tx, view.volume.mim_seq, seq),
    );
    const stored = new Set(runs.map((run) => run.source));
    const top = new ExtentMap();
    for (const run of runs)
      if (run.from_seq <= seq && run.to_seq > seq) await this.#partOfSegment(run.source, seq, top);
    for (const segment of tail) {
      if (stored.has(segment.segment)) continue;
      for (const { batch, bytes, at } of batchesOf(segment)) {
        if (batch.firstSeq > seq) break;
        for (const d of descriptorsOf(bytes, at, batch))
          if (d.seq <= seq) putDescriptor(top, d, segment.segment);
      }
    }
    return new RunLayers(covering.reverse(), top, this.#context.pages);
  }

  /** At one moment: all runs of segments, and the fewest that cover those with writes in `(mimSeq, seq]` alone. */
  async #forwardRuns(
    tx: CatalogTransaction,
    mimSeq: number,
    seq: number,
  ): Promise<{ runs: StoredRun[]; covering: StoredRun[] }> {
    const runs = await runsOf(tx, this.id, 'forward');
    const whole = runs.filter((run) => run.to_seq > mimSeq && run.to_seq <= seq);
    const [first, last] = [whole[0], whole.at(-1)];
    if (first === undefined || last === undefined) return { runs, covering: [] };
    return { runs, covering: await coveringRuns(tx, this.id, 'forward', first.source, last.source) };
  }

  /** In a turn. What covers a snapshot: runs, the oldest first. */
  async #backwardFound(snapshot: number): Promise<Found> {
    // At one moment: a drop or a sync between the looks would leave what it moved in neither.
    return await this.#context.catalog.transaction(async (tx) => {
      const covering = await coveringRuns(tx, this.id, 'backward', snapshot, Number.MAX_SAFE_INTEGER);
      const places = new RunLayers(covering, new ExtentMap(), this.#context.pages);
      return { places, side: 'backward', known: await this.#runsFrom(tx, snapshot, null) };
    });
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
  }

  async #find(seq: number): Promise<Found> {
    const view = await this.view();
    // After the look at the MIM's point: a sync that ends in between has marked granules that the map leans on.
    await this.#mim.reload();
    if (seq >= view.syncedSeq) {
      const places = await this.#forwardLayers(view, seq);
      return { places, side: 'forward', known: { count: 0, lastId: 0 } };
    }
    const snapshot = view.snapshots.find((row) => row.seq === seq);
    if (snapshot === undefined)
      throw new MidmirrorError(
        'point-unavailable',
        `write ${seq} of volume "${this.name}" is no longer a point of its own`,
      );
    return await this.#backwardFound(snapshot.snapshot);
  }

  /** In a turn. Its places as they are now, from the runs; a tree of them follows. */
  async #again(open: OpenMirror): Promise<Places> {
    const { places, side, known } = await this.#find(open.mirror.seq);
    open.side = side;
    open.known = known;
    return places;
  }

  /** In a turn. Before the MIM changes under a mirror: its places with what the sync has saved. */
  async #follow(open: OpenMirror): Promise<Places> {
    const { places } = open.mirror;
    if (open.side === 'forward' || !(places instanceof TreePlaces)) return await this.#again(open);
    const { db } = this.#context.catalog;
    const snapshot = await this.#snapshotAt(open.mirror.seq);
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
    return places;
  }

  async #hasAllRuns(open: OpenMirror): Promise<boolean> {
    const snapshot = await this.#snapshotAt(open.mirror.seq);
    const { count } = await this.#runsFrom(this.#context.catalog.db, snapshot, open.known.lastId);
    return count === open.known.count;
  }

  async #snapshotAt(seq: number): Promise<number> {
    const { snapshot } = await this.#context.catalog.db
      .selectFrom('snapshot')
      .select('snapshot')
      .where('volume_id', '=', this.id)
      .where('seq', '=', seq)
      .executeTakeFirstOrThrow();
    return snapshot;
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

  #switch(open: OpenMirror, places: Places): Promise<void> {
    const done = open.mirror.switchTo(places);
    if (places instanceof RunLayers) this.#plant(open);
    return done;
  }

  /** Runs that a mirror reads from have been replaced by others. */
  #refresh(seq: number): Promise<void> {
    return this.turns.take(async () => {
      const open = this.#mirrors.get(seq);
      if (open === undefined) throw new MidmirrorError('unavailable', `the mirror of write ${seq} is closed`);
      await this.#switch(open, await this.#again(open));
    });
  }

  // ── trees ──────────────────────────────────────────────────────────────────────────────────────────────

  /** A mirror on runs gets a tree of its own in the background, if there is room for it. */
  #plant(open: OpenMirror): void {
    open.fell();
    const { places } = open.mirror;
    if (!(places instanceof RunLayers)) return;
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

  async #grow(open: OpenMirror, layers: RunLayers, generation: number): Promise<void> {
    const stale = (): boolean =>
      open.mirror.generation !== generation || this.#mirrors.get(open.mirror.seq) !== open;
    const map = new ExtentMap();
    for (const run of layers.runs.toReversed()) {
      for await (const page of pagesOf(this.#context.catalog.db, run)) {
        if (stale()) return;
        putPage(page, map, false);
      }
    }
    for (const c = layers.top.cursor(); c.valid; c.next())
      map.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
    // No sync, drop or recycling comes between the look and the switch.
    await this.turns.take(async () => {
      if (stale()) return;
      open.trees += 1;
      await this.#switch(open, new TreePlaces(new TreeVrmo(map, { sizeBytes: this.sizeBytes })));
    });
  }

  async #partOfSegment(segment: number, seq: number, map: ExtentMap): Promise<void> {
    const reader = await this.pieces.segment(segment);
    for await (const { batch, bytes } of reader.batches(0, seq)) {
      for (const d of descriptorsOf(bytes, 0, batch)) if (d.seq <= seq) putDescriptor(map, d, segment);
    }
  }
}

export function snapshotTimes(row: SnapshotRow): { timeNs: bigint; untilNs: bigint | null } {
  return { timeNs: fromNs(row.time_ns), untilNs: row.until_ns === null ? null : fromNs(row.until_ns) };
}

function kindOf(places: Places): Pick<OpenMirrorView, 'kind' | 'nodes' | 'conversions'> {
  if (!(places instanceof TreePlaces)) return { kind: 'runs', nodes: 0, conversions: 0 };
  const { kind, nodes, conversions } = places.vrmo;
  return { kind, nodes, conversions };
}
