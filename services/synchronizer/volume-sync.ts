// The syncs of one volume, one after the other, in eight steps; each may be the last before a crash, and a
// restart goes on from what the catalogue and mim.state say. Step names are those of the fault port.
import { setTimeout as pause } from 'node:timers/promises';
import { type Clock, isUnavailable, MidmirrorError } from '@midmirror/basis';
import { type Bus, ask, askReaders, tell } from '@midmirror/bus';
import {
  type Catalog,
  type CatalogReader,
  type CatalogTransaction,
  fromNs,
  gapAtSeq,
  gapsOf,
  holderOf,
  newestSnapshotOf,
  openSnapshotOf,
  type SyncRow,
  syncUnderWay,
  toNs,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import type { DomainEvent, Requests } from '@midmirror/events';
import type { ExtentMap } from '@midmirror/extent-map';
import { parsePolicy, type VolumePolicy } from '@midmirror/policy';
import {
  MimWriter,
  PieceReader,
  type PoolFiles,
  poolLimits,
  readMimState,
  volumePaths,
  writeMimState,
  type VolumePaths,
} from '@midmirror/pool';
import type { MimState } from '@midmirror/journal';
import { TreeVrmo } from '@midmirror/vrmo';
import type { Telemetry } from '@midmirror/telemetry';
import { BackwardObjects } from './backward-objects.ts';
import { limits } from './limits.ts';
import { applyMoves, saveRanges } from './move-data.ts';
import { isDueBefore, lastBeforeGap } from './last-before-gap.ts';
import { forwardMovelist } from './movelist.ts';
import type { NewestVrmos } from './newest-vrmos.ts';
import { insertSaved, objectHeader, savedFor, writeObjects } from './objects.ts';
import { SyncWatch } from './sync-watch.ts';

export type SyncStep = 'planned' | 'saved' | 'prepared' | 'switched' | 'applied' | 'told' | 'recycled';

export interface VolumeSyncContext {
  files: PoolFiles;
  catalog: Catalog;
  bus: Bus;
  clock: Clock;
  /** Called after each step; tests stop the world there. */
  reached: (step: SyncStep) => void | Promise<void>;
  telemetry: Telemetry;
  /** How long readers may leave a request unanswered before this goes on without them. Default: 5000. */
  leaseMs?: number;
  /** Aborted when it stops. */
  signal?: AbortSignal;
}

export type SyncResult = Requests['synchronizer.sync']['answer'];

const SOURCE = '/midmirror/synchronizer';

export class VolumeSync {
  readonly id: string;
  readonly watch: SyncWatch;
  readonly objects: BackwardObjects;
  readonly #context: VolumeSyncContext;
  readonly #vrmos: NewestVrmos;
  readonly #paths: VolumePaths;
  #recycleOwed = false;

  constructor(id: string, directory: string, context: VolumeSyncContext, vrmos: NewestVrmos) {
    this.id = id;
    this.watch = new SyncWatch(id, context.telemetry);
    this.#context = context;
    this.#vrmos = vrmos;
    this.#paths = volumePaths(directory);
    this.objects = new BackwardObjects(id, this.#paths.backward, context.files, context.catalog);
  }

  get paths(): VolumePaths {
    return this.#paths;
  }

  /** Ends what a crash interrupted. */
  async resume(): Promise<void> {
    await this.#finishBegun();
    await this.recycle();
  }

  /** The journal may hold what the MIM has: nobody answered when the last sync told of it. */
  get recycleOwed(): boolean {
    return this.#recycleOwed;
  }

  /** Step 8, for whatever the MIM holds by now. */
  async recycle(): Promise<void> {
    const { mim_seq } = await volumeById(this.#context.catalog.db, this.id);
    await ask(this.#context.bus, 'ingest.recycle', { volumeId: this.id, seq: mim_seq });
    this.#recycleOwed = false;
  }

  /**
   * Asks readers to get out of the way. False: nobody has answered for long enough; they find out by the pool.
   */
  async askReaders(name: 'mapping-index.prepare' | 'mapping-index.advance', syncId = 0): Promise<boolean> {
    const { bus, leaseMs = limits.leaseMsDefault, signal } = this.#context;
    const { traceparent } = this.watch;
    const options = { leaseMs, traceparent, ...(signal === undefined ? {} : { signal }) };
    return (await askReaders(bus, name, { volumeId: this.id, syncId }, options)) !== null;
  }

  /** A sync that failed on its way, of an earlier process or of this one (a full disk), goes first. One that was
   *  only planned is given up. */
  async #finishBegun(): Promise<void> {
    await this.objects.begin();
    const row = await syncUnderWay(this.#context.catalog.db, this.id);
    if (row === undefined) return;
    if (row.state === 'planned') return await this.#abandon(row.sync_id);
    await this.#watched(row.cause, () => this.#perform(row));
  }

  /** A plan that came to nothing: what it kept others from pinning is free again. The MIM has not been touched. */
  async #abandon(syncId: number): Promise<void> {
    await this.#context.catalog.db
      .deleteFrom('sync')
      .where('volume_id', '=', this.id)
      .where('sync_id', '=', syncId)
      .where('state', '=', 'planned')
      .execute();
    await this.objects.removeOrphans();
  }

  /** Moves the MIM up to `toSeq`, which is durable. Points that must stay are stations on the way. */
  async syncUpTo(toSeq: number, closeSnapshot: boolean, cause: string): Promise<SyncResult> {
    await this.#finishBegun();
    const volume = await volumeById(this.#context.catalog.db, this.id);
    const result: SyncResult = {
      fromSeq: volume.mim_seq,
      toSeq: volume.mim_seq,
      syncs: 0,
      extents: 0,
      bytes: 0,
      snapshot: null,
    };
    while (result.toSeq < toSeq) {
      const { plan, moved } = await this.#watched(cause, () => this.#syncOnce(toSeq, cause));
      result.toSeq = plan.to_seq;
      result.syncs += 1;
      result.extents += moved.extents;
      result.bytes += moved.bytes;
      result.snapshot = plan.snapshot;
    }
    // Nobody could read a snapshot of a moment within a gap.
    const gap = closeSnapshot ? await gapAtSeq(this.#context.catalog.db, this.id, result.toSeq) : null;
    if (closeSnapshot && gap === null) result.snapshot = await this.#openSnapshotHere('requested');
    return result;
  }

  async #syncOnce(toSeq: number, cause: string) {
    const plan = await this.#plan(toSeq, cause);
    const moved = await this.#perform(plan).catch(async (error: unknown) => {
      await this.#abandon(plan.sync_id);
      throw error;
    });
    return { plan, moved };
  }

  async #watched<T>(cause: string, act: () => Promise<T>): Promise<T> {
    this.watch.began(cause);
    try {
      const done = await act();
      this.watch.ended();
      return done;
    } catch (error) {
      this.watch.ended(error);
      throw error;
    }
  }

  async #tell(tx: CatalogTransaction, event: DomainEvent): Promise<void> {
    await tell(this.#context.bus, tx, SOURCE, event, this.watch.traceparent);
  }

  async #reached(step: SyncStep): Promise<void> {
    this.watch.reached(step);
    await this.#context.reached(step);
  }

  // ── step 1 ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Chooses the next station and opens a snapshot where one is due; one transaction with the pins it looked at. */
  async #plan(wantedSeq: number, cause: string): Promise<SyncRow> {
    const { catalog, clock } = this.#context;
    const plan = await catalog.transaction(async (tx) => {
      const volume = await volumeById(tx, this.id);
      const policy = parsePolicy(JSON.parse(volume.policy));
      const snapshot = await this.#snapshotFor(tx, volume, policy, cause);
      const toSeq = await this.#station(tx, volume, policy, wantedSeq, fromNs(snapshot.time_ns));
      const last = await tx
        .selectFrom('sync')
        .select((e) => e.fn.max('sync_id').as('id'))
        .where('volume_id', '=', this.id)
        .executeTakeFirst();
      const row: SyncRow = {
        volume_id: this.id,
        sync_id: (last?.id ?? 0) + 1,
        snapshot: snapshot.snapshot,
        from_seq: volume.mim_seq,
        from_ns: volume.mim_ns,
        to_seq: toSeq,
        to_ns: volume.mim_ns,
        state: 'planned',
        cause,
        started_ns: toNs(clock.nowNs()),
        finished_ns: null,
        extents: 0,
        bytes: 0,
      };
      await tx.insertInto('sync').values(row).execute();
      return row;
    });
    await this.#reached('planned');
    return plan;
  }

  /** The first point on the way that must stay: a pinned one, a mark that survives, the last before a gap. */
  async #station(
    tx: CatalogTransaction,
    volume: VolumeRow,
    policy: VolumePolicy,
    wantedSeq: number,
    openNs: bigint,
  ): Promise<number> {
    const between = <T extends 'pin' | 'mark'>(table: T) =>
      tx
        .selectFrom(table as 'pin')
        .select((e) => e.fn.min('seq').as('seq'))
        .where('volume_id', '=', this.id)
        .where('seq', '>', volume.mim_seq)
        .where('seq', '<', wantedSeq);
    const pin = await between('pin').executeTakeFirst();
    let station = Math.min(wantedSeq, pin?.seq ?? wantedSeq);
    if (policy.keepMarks.length > 0) {
      const mark = await tx
        .selectFrom('mark')
        .select((e) => e.fn.min('seq').as('seq'))
        .where('volume_id', '=', this.id)
        .where('kind', 'in', policy.keepMarks)
        .where('seq', '>', volume.mim_seq)
        .where('seq', '<', wantedSeq)
        .executeTakeFirst();
      station = Math.min(station, mark?.seq ?? station);
    }
    const gaps = await gapsOf(tx, this.id);
    return lastBeforeGap(gaps, volume.mim_seq, station, openNs, policy.snapshotEverySeconds) ?? station;
  }

  async #snapshotFor(tx: CatalogTransaction, volume: VolumeRow, policy: VolumePolicy, cause: string) {
    const open = await openSnapshotOf(tx, this.id);
    const reason = await this.#reasonForSnapshot(
      tx,
      volume,
      policy,
      open === undefined ? null : fromNs(open.time_ns),
      cause,
    );
    if (open !== undefined && (reason === null || open.seq === volume.mim_seq)) return open;
    return await this.#openSnapshot(tx, volume, reason ?? cause, open?.snapshot ?? null);
  }

  /** Why the MIM's present point must become a snapshot; null: the open one goes on. */
  async #reasonForSnapshot(
    tx: CatalogTransaction,
    volume: VolumeRow,
    policy: VolumePolicy,
    openNs: bigint | null,
    cause: string,
  ): Promise<string | null> {
    if (openNs === null) return cause;
    const holder = await holderOf(tx, this.id, volume.mim_seq);
    if (holder !== undefined) return `pinned by a ${holder}`;
    const marks = await tx
      .selectFrom('mark')
      .selectAll()
      .where('volume_id', '=', this.id)
      .where('seq', '=', volume.mim_seq)
      .execute();
    const mark = marks.find((row) => (policy.keepMarks as string[]).includes(row.kind));
    if (mark !== undefined) return `mark ${mark.name}`;
    const gaps = (await gapsOf(tx, this.id)).filter(({ fromSeq }) => fromSeq === volume.mim_seq);
    const due = gaps.find((gap) => isDueBefore(gap, openNs, policy.snapshotEverySeconds));
    if (due !== undefined) return `the last point before gap ${due.number}`;
    if ((await gapAtSeq(tx, this.id, volume.mim_seq)) !== null) return null;
    const ageNs = fromNs(volume.mim_ns) - openNs;
    return ageNs >= BigInt(policy.snapshotEverySeconds) * 1_000_000_000n ? 'schedule' : null;
  }

  async #openSnapshot(tx: CatalogTransaction, volume: VolumeRow, reason: string, closing: number | null) {
    const nowNs = this.#context.clock.nowNs();
    if (closing !== null) {
      await tx
        .updateTable('snapshot')
        .set({ state: 'closed' })
        .where('volume_id', '=', this.id)
        .where('snapshot', '=', closing)
        .execute();
      await this.#tell(tx, {
        type: 'snapshot.closed',
        volumeId: this.id,
        timeNs: nowNs.toString(),
        data: { snapshot: closing },
      });
    }
    const row = {
      volume_id: this.id,
      snapshot: await this.#nextSnapshot(tx, closing ?? 0),
      seq: volume.mim_seq,
      time_ns: volume.mim_ns,
      until_ns: null,
      state: 'open',
      opened_ns: toNs(nowNs),
      reason,
    };
    await tx.insertInto('snapshot').values(row).execute();
    const data = { snapshot: row.snapshot, seq: row.seq, timeNs: fromNs(row.time_ns).toString(), reason };
    await this.#tell(tx, {
      type: 'snapshot.opened',
      volumeId: this.id,
      timeNs: nowNs.toString(),
      data,
    });
    return row;
  }

  /** Closes the open snapshot and opens one at the MIM's point, so that this point stays. Its number. */
  async #openSnapshotHere(reason: string): Promise<number> {
    const { catalog } = this.#context;
    const volume = await volumeById(catalog.db, this.id);
    const open = await openSnapshotOf(catalog.db, this.id);
    if (open?.seq === volume.mim_seq) return open.snapshot;
    // An object that holds nothing: the pool knows of the snapshot before anybody is promised it (I7).
    const snapshot = await this.#nextSnapshot(catalog.db, open?.snapshot ?? 0);
    const span = { fromSeq: volume.mim_seq, toSeq: volume.mim_seq };
    const row = { volume_id: this.id, snapshot, seq: volume.mim_seq, time_ns: volume.mim_ns, reason };
    const header = await objectHeader(catalog.db, row, 0n, 0, span);
    const objects = await writeObjects(this.objects, header, async () => {});
    await catalog.transaction(async (tx) => {
      await this.#openSnapshot(tx, volume, reason, open?.snapshot ?? null);
      await insertSaved(tx, this.id, snapshot, span, objects);
    });
    return snapshot;
  }

  async #nextSnapshot(db: CatalogReader, closing: number): Promise<number> {
    const newest = await newestSnapshotOf(db, this.id);
    return Math.max(newest?.snapshot ?? 0, closing) + 1;
  }

  // ── steps 2 to 8 ───────────────────────────────────────────────────────────────────────────────────────

  async #perform(plan: SyncRow): Promise<{ extents: number; bytes: number }> {
    const { files } = this.#context;
    const pieces = new PieceReader(files, this.#paths);
    const mim = await MimWriter.open(files, this.#paths);
    try {
      const { moves, firstNs, lastNs } = await forwardMovelist(
        files,
        this.#paths,
        pieces,
        plan.from_seq,
        plan.to_seq,
      );
      const done: SyncRow = { ...plan, to_ns: toNs(lastNs) };
      if (plan.state === 'planned') {
        await this.#saveAndPrepare(done, moves, mim, firstNs);
        await this.#reached('prepared');
      }
      const heard = await this.askReaders('mapping-index.prepare', plan.sync_id);
      await this.#reached('switched');
      await this.#tellOfMim(done, heard);
      await this.#apply(done, moves, mim, pieces, lastNs);
      return { extents: moves.size, bytes: moves.coveredBytes };
    } finally {
      await mim.close();
      await pieces.close();
    }
  }

  /**
   * Steps 3 and 4, FIG. 15: what of the movelist's ranges the open snapshot still has on the MIM goes into objects; then
   * the catalogue hears of it, and last the VRMO [0073].
   */
  async #saveAndPrepare(plan: SyncRow, moves: ExtentMap, mim: MimWriter, firstNs: bigint): Promise<void> {
    const { catalog } = this.#context;
    const vrmo = await this.#newestVrmo(plan.snapshot);
    const snapshot = await this.#snapshot(plan.snapshot);
    const untilNs = snapshot.until_ns === null ? firstNs : fromNs(snapshot.until_ns);
    const span = { fromSeq: plan.from_seq, toSeq: plan.to_seq };
    const header = await objectHeader(catalog.db, snapshot, untilNs, plan.sync_id, span);
    const ranges = vrmo.backwardMovelist(moves);
    const objects = await writeObjects(this.objects, header, (writer) => saveRanges(mim, ranges, writer));
    await this.#reached('saved');
    await catalog.transaction(async (tx) => {
      await insertSaved(tx, this.id, plan.snapshot, span, objects);
      await tx
        .updateTable('snapshot')
        .set({ until_ns: toNs(untilNs) })
        .where('volume_id', '=', this.id)
        .where('snapshot', '=', plan.snapshot)
        .execute();
      await tx
        .updateTable('sync')
        .set({ state: 'prepared', to_ns: plan.to_ns })
        .where('volume_id', '=', this.id)
        .where('sync_id', '=', plan.sync_id)
        .execute();
      const data = {
        syncId: plan.sync_id,
        fromSeq: plan.from_seq,
        toSeq: plan.to_seq,
        snapshot: plan.snapshot,
      };
      await this.#tell(tx, {
        type: 'sync.prepared',
        volumeId: this.id,
        timeNs: this.#context.clock.nowNs().toString(),
        data,
      });
    });
    for (const { extents } of objects) vrmo.moveOffMim(extents);
    this.#vrmos.keep(this.id, plan.snapshot, vrmo);
  }

  /** What lies where for the open snapshot, as the catalogue has it. */
  async #newestVrmo(snapshot: number): Promise<TreeVrmo> {
    const kept = this.#vrmos.take(this.id, snapshot);
    if (kept !== null) return kept;
    const { db } = this.#context.catalog;
    const { size_bytes } = await volumeById(db, this.id);
    return new TreeVrmo(await savedFor(db, this.id, snapshot), { sizeBytes: size_bytes });
  }

  async #mimState(): Promise<MimState> {
    const state = await readMimState(this.#context.files, this.#paths);
    if (state !== null) return state;
    throw new MidmirrorError('corrupt', `${this.#paths.mimState}: both slots are damaged`);
  }

  /**
   * Before the first byte of step 6: mim.state says what will be written. Readers that have not heard of it see it there
   * before what they read then counts (MimWatch).
   */
  async #tellOfMim(plan: SyncRow, heard: boolean): Promise<void> {
    const writing = { syncId: plan.sync_id, targetSeq: plan.to_seq };
    await writeMimState(this.#context.files, this.#paths, await this.#mimState(), writing);
    if (!heard) await pause(poolLimits.readerSettleMs);
  }

  /** Steps 6 to 8. */
  async #apply(
    plan: SyncRow,
    moves: ExtentMap,
    mim: MimWriter,
    pieces: PieceReader,
    lastNs: bigint,
  ): Promise<void> {
    const { files, catalog, clock } = this.#context;
    await applyMoves(mim, moves, pieces);
    await writeMimState(files, this.#paths, await this.#mimState(), {
      mimSeq: plan.to_seq,
      mimNs: lastNs,
      syncId: 0,
      targetSeq: 0,
    });
    await this.#reached('applied');
    const nowNs = clock.nowNs();
    const bytes = moves.coveredBytes;
    await catalog.transaction(async (tx) => {
      await tx
        .updateTable('sync')
        .set({ state: 'applied', to_ns: plan.to_ns, finished_ns: toNs(nowNs), extents: moves.size, bytes })
        .where('volume_id', '=', this.id)
        .where('sync_id', '=', plan.sync_id)
        .execute();
      // The timeline tells of those before. Who opens a point looks for a sync under way, at all rows that there are.
      await tx
        .deleteFrom('sync')
        .where('volume_id', '=', this.id)
        .where('sync_id', '<', plan.sync_id)
        .where('state', '=', 'applied')
        .execute();
      await tx
        .updateTable('volume')
        .set({ mim_seq: plan.to_seq, mim_ns: plan.to_ns })
        .where('id', '=', this.id)
        .execute();
      const data = {
        syncId: plan.sync_id,
        fromSeq: plan.from_seq,
        toSeq: plan.to_seq,
        toTimeNs: lastNs.toString(),
        snapshot: plan.snapshot,
      };
      await this.#tell(tx, {
        type: 'mim.advanced',
        volumeId: this.id,
        timeNs: nowNs.toString(),
        data,
      });
    });
    await this.#reached('told');
    try {
      await ask(
        this.#context.bus,
        'ingest.recycle',
        { volumeId: this.id, seq: plan.to_seq },
        { traceparent: this.watch.traceparent },
      );
      this.#recycleOwed = false;
    } catch (error) {
      // Its owner may be changing. The sync is done all the same; whoever made it asks again.
      if (!isUnavailable(error)) throw error;
      this.#recycleOwed = true;
      return;
    }
    await this.#reached('recycled');
  }

  async #snapshot(snapshot: number) {
    const { db } = this.#context.catalog;
    return await db
      .selectFrom('snapshot')
      .selectAll()
      .where('volume_id', '=', this.id)
      .where('snapshot', '=', snapshot)
      .executeTakeFirstOrThrow();
  }
}
