// What the mapping index knows of one volume: where each address lay at each retained point, and the mirrors
// that are open. Opening, resolving and what syncs ask of it take turns, so that a map is never built from a
// catalogue that is half a step ahead.
import { randomUUID } from 'node:crypto';
import { type Clock, MidmirrorError, Turns } from '@midmirror/basis';
import {
  type Catalog,
  fromNs,
  loadRun,
  pinPoint,
  runsOf,
  type SnapshotRow,
  snapshotsOf,
  type StoredRun,
  unpinPoint,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import { ExtentMap } from '@midmirror/extent-map';
import { descriptorsOf, putDescriptor } from '@midmirror/journal';
import { MimImage, PieceReader, type PoolFiles, type VolumePaths, volumePaths } from '@midmirror/pool';
import { FlatVrmo, type Vrmo } from '@midmirror/vrmo';
import { limits } from './limits.ts';
import { Mirror } from './mirror.ts';
import { batchesOf, type Tail } from './tail.ts';

export interface IndexContext {
  files: PoolFiles;
  catalog: Catalog;
  clock: Clock;
}

interface OpenMirror {
  mirror: Mirror;
  side: Side;
  /** Backward: ids of the runs in its map. */
  runs: Set<number>;
  timeNs: bigint;
  readers: number;
  pinId: string;
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

  get mirrors(): { seq: number; timeNs: bigint; readers: number; extents: number }[] {
    return [...this.#mirrors.values()].map(({ mirror, timeNs, readers }) => ({
      seq: mirror.seq,
      timeNs,
      readers,
      extents: mirror.vrmo.extentCount,
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
        open = { ...(await this.#build(seq)), timeNs, readers: 0, pinId };
      } catch (error) {
        await unpinPoint(this.#context.catalog.db, pinId);
        throw error;
      }
      this.#mirrors.set(seq, open);
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
      const runs = await runsOf(db, this.id, 'backward');
      const switching: Promise<void>[] = [];
      for (const open of this.#mirrors.values()) {
        if (open.mirror.seq >= sync.to_seq) continue;
        switching.push(open.mirror.switchTo(await this.#follow(open, runs)));
      }
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
      const runs = await runsOf(db, this.id, 'backward');
      const present = new Set(runs.map((run) => run.id));
      const held = await db
        .selectFrom('segment')
        .select((e) => e.fn.max('segment').as('last'))
        .where('volume_id', '=', this.id)
        .where('last_seq', '<=', mim_seq)
        .executeTakeFirst();
      const switching: Promise<void>[] = [];
      for (const open of this.#mirrors.values()) {
        let { vrmo } = open.mirror;
        if (open.side === 'forward' && open.mirror.seq >= mim_seq) {
          if (held?.last != null) vrmo.moveOntoMim(held.last);
        } else if (open.side === 'forward' || [...open.runs].some((id) => !present.has(id)))
          vrmo = await this.#rebuild(open);
        switching.push(open.mirror.switchTo(vrmo));
      }
      await Promise.all(switching);
      return this.#mirrors.size;
    });
  }

  /** In a turn. Adds the forward extents of the writes in `(mim, seq]` to `map`. */
  async forwardMap(view: VolumeView, seq: number, map: ExtentMap): Promise<void> {
    const tail = this.tail.segments;
    const stored = new Set<number>();
    for (const run of await runsOf(this.#context.catalog.db, this.id, 'forward')) {
      stored.add(run.source);
      if (run.to_seq <= view.volume.mim_seq || run.from_seq > seq) continue;
      if (run.to_seq <= seq) await loadRun(this.#context.catalog.db, run.id, map, false);
      else await this.#partOfSegment(run.source, seq, map);
    }
    for (const segment of tail) {
      if (stored.has(segment.segment)) continue;
      for (const { batch, bytes, at } of batchesOf(segment)) {
        if (batch.firstSeq > seq) return;
        for (const d of descriptorsOf(bytes, at, batch))
          if (d.seq <= seq) putDescriptor(map, d, segment.segment);
      }
    }
  }

  /** In a turn. Adds the backward extents of a snapshot to `map`. The ids of the runs. */
  async backwardMap(snapshot: number, map: ExtentMap): Promise<Set<number>> {
    const ids = new Set<number>();
    for (const run of await runsOf(this.#context.catalog.db, this.id, 'backward')) {
      if (run.snapshot < snapshot) continue;
      await loadRun(this.#context.catalog.db, run.id, map, true);
      ids.add(run.id);
    }
    return ids;
  }

  /** A segment has gone from the ring: its file will hold other writes. */
  async forgetSegment(segment: number): Promise<void> {
    await this.pieces.forget(false, segment);
  }

  async close(): Promise<void> {
    for (const open of this.#mirrors.values()) await unpinPoint(this.#context.catalog.db, open.pinId);
    this.#mirrors.clear();
    await this.pieces.close();
    await this.#mim.close();
  }

  async #build(seq: number): Promise<{ mirror: Mirror; side: Side; runs: Set<number> }> {
    const { vrmo, side, runs } = await this.#map(seq);
    return { mirror: new Mirror(seq, this.sizeBytes, vrmo, this.#mim, this.pieces), side, runs };
  }

  async #map(seq: number): Promise<{ vrmo: Vrmo; side: Side; runs: Set<number> }> {
    const view = await this.view();
    // After the look at the MIM's point: a sync that ends in between has marked granules that the map leans on.
    await this.#mim.reload();
    const map = new ExtentMap();
    if (seq >= view.syncedSeq) {
      await this.forwardMap(view, seq, map);
      return { vrmo: new FlatVrmo(map), side: 'forward', runs: new Set() };
    }
    const snapshot = view.snapshots.find((row) => row.seq === seq);
    if (snapshot === undefined)
      throw new MidmirrorError(
        'point-unavailable',
        `write ${seq} of volume "${this.name}" is no longer a point of its own`,
      );
    const runs = await this.backwardMap(snapshot.snapshot, map);
    return { vrmo: new FlatVrmo(map), side: 'backward', runs };
  }

  /** Before the MIM changes under a mirror: its map with the runs it does not have yet, oldest first. */
  async #follow(open: OpenMirror, runs: StoredRun[]): Promise<Vrmo> {
    if (open.side === 'forward') return await this.#rebuild(open);
    const snapshot = await this.#context.catalog.db
      .selectFrom('snapshot')
      .select('snapshot')
      .where('volume_id', '=', this.id)
      .where('seq', '=', open.mirror.seq)
      .executeTakeFirstOrThrow();
    for (const run of runs) {
      if (run.snapshot < snapshot.snapshot || open.runs.has(run.id)) continue;
      const saved = new ExtentMap();
      await loadRun(this.#context.catalog.db, run.id, saved, true);
      open.mirror.vrmo.moveOffMim(saved);
      open.runs.add(run.id);
    }
    return open.mirror.vrmo;
  }

  async #rebuild(open: OpenMirror): Promise<Vrmo> {
    const { vrmo, side, runs } = await this.#map(open.mirror.seq);
    open.side = side;
    open.runs = runs;
    return vrmo;
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
