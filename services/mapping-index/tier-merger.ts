// Merges runs into tiers in the background, a slice at a time with rests between, so that writes don't feel it. A
// merged run is written under the level BUILDING and takes its level in one transaction that sees all of its inputs
// still there; what a death leaves half-made is removed at the next start.
import { setTimeout as pause } from 'node:timers/promises';
import { messageOf } from '@midmirror/basis';
import {
  BUILDING,
  type Catalog,
  deleteRunById,
  insertPages,
  leveledRunsOf,
  openSnapshotOf,
  PageBuilder,
  pagesOf,
  RunGoneError,
  runsAtEnd,
  type StoredRun,
} from '@midmirror/catalog';
import { nextMerge, tierRunOf } from '@midmirror/runs';
import { limits } from './limits.ts';
import { restAfterSliceMs } from './merge-pace.ts';
import { Overlay } from './overlay.ts';

type Side = 'forward' | 'backward';
/** `end`: runs have only come behind all others; the rest of a long history need not be looked at. */
export type Where = 'end' | 'anywhere';

export class TierMerger {
  readonly #catalog: Catalog;
  readonly #log: (message: string) => void;
  /** Sides of volumes that may have something to merge, and where. */
  readonly #due = new Map<string, Where>();
  /** Of those, where a merge has failed: all runs are looked at next time. */
  readonly #missed = new Set<string>();
  #working: Promise<void> | null = null;
  readonly #stop = new AbortController();
  /** How busy others kept the event loop while merging last rested. */
  #busyShare = 1;

  constructor(catalog: Catalog, log: (message: string) => void) {
    this.#catalog = catalog;
    this.#log = log;
  }

  async start(): Promise<void> {
    const { db } = this.#catalog;
    for (const { id } of await db.selectFrom('run').select('id').where('level', '=', BUILDING).execute())
      await deleteRunById(db, id);
    await db.deleteFrom('pel_page').where('run_id', 'not in', db.selectFrom('run').select('id')).execute();
    for (const { id } of await db.selectFrom('volume').select('id').execute()) {
      this.changed(id, 'forward');
      this.changed(id, 'backward');
    }
  }

  /** Runs of level 0 have come or gone. */
  changed(volumeId: string, side: Side, where: Where = 'anywhere'): void {
    if (this.#stop.signal.aborted) return;
    const due = `${side}:${volumeId}`;
    if (this.#due.get(due) !== 'anywhere') this.#due.set(due, where);
    this.#begin();
  }

  #begin(): void {
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
      if (this.#due.size > 0 && !this.#stop.signal.aborted) this.#begin();
    });
  }

  /** Sides of volumes that are still to be looked at. */
  get waiting(): number {
    return this.#due.size;
  }

  /** Resolves when nothing is left to merge. */
  async idle(): Promise<void> {
    while (this.#working !== null) await this.#working;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#working;
  }

  async #work(): Promise<void> {
    for (const [due, where] of this.#due) {
      this.#due.delete(due);
      const [side, volumeId] = due.split(':') as [Side, string];
      const look = this.#missed.delete(due) ? 'anywhere' : where;
      try {
        const ended = await this.#mergeAll(volumeId, side, look, () => this.#due.has(due));
        if (this.#stop.signal.aborted) return;
        if (!ended && look === 'anywhere') this.#due.set(due, 'anywhere');
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        // The runs below stay as they are; the next change of them asks again, and then for all of them.
        this.#missed.add(due);
        if (!(error instanceof RunGoneError)) this.#log(`merging of runs waits: ${messageOf(error)}`);
      }
    }
  }

  /** False: not all is merged. Runs that have come meanwhile are looked at first, for the lowest level comes first. */
  async #mergeAll(volumeId: string, side: Side, where: Where, changed: () => boolean): Promise<boolean> {
    const { db } = this.#catalog;
    const open = await openSnapshotOf(db, volumeId);
    // Syncs still add to an open snapshot.
    const closedBefore = open?.snapshot ?? Number.MAX_SAFE_INTEGER;
    const found = await (where === 'end' ? runsAtEnd : leveledRunsOf)(db, volumeId, side);
    const runs = found.filter((run) => run.snapshot < closedBefore);
    // Looked up once: a run that goes meanwhile fails the merge that needs it, and its going asks again.
    const tiers = runs.map(tierRunOf);
    for (let merge = nextMerge(tiers); merge !== null; merge = nextMerge(tiers)) {
      if (this.#stop.signal.aborted) return false;
      const inputs = merge.inputs.map(({ run }) => run);
      tiers.push(tierRunOf(await this.#merge(inputs, merge.level)));
      if (changed()) return false;
    }
    return true;
  }

  async #merge(inputs: StoredRun[], level: number): Promise<StoredRun> {
    const { db } = this.#catalog;
    const first = inputs[0]!;
    const last = inputs.at(-1)!;
    const { volume_id, side, first_source, snapshot, from_seq } = first;
    const source = Math.max(...inputs.map((run) => run.source));
    const run = {
      ...{ volume_id, side, first_source, source, snapshot, from_seq },
      ...{ last_snapshot: last.last_snapshot, to_seq: last.to_seq, data_bytes: 0 },
    };
    const { id } = await db
      .insertInto('run')
      .values({ ...run, level: BUILDING, extents: 0, page_bytes: 0 })
      .returning('id')
      .executeTakeFirstOrThrow();
    try {
      const written = await this.#writePages(id, side === 'forward' ? inputs.toReversed() : inputs);
      await this.#publish(id, level, inputs, written);
      return { ...run, id, level, extents: written.extents, page_bytes: written.pageBytes };
    } catch (error) {
      await deleteRunById(db, id);
      throw error;
    }
  }

  /** `inputs`: the one that wins over all others first. */
  async #writePages(id: number, inputs: StoredRun[]): Promise<{ extents: number; pageBytes: number }> {
    const { db } = this.#catalog;
    const builder = new PageBuilder();
    const written = { extents: 0, pageBytes: 0 };
    const overlay = new Overlay(inputs.length, {
      add: (...extent) => {
        written.extents += 1;
        builder.add(...extent);
      },
    });
    const pages = inputs.map((run) => pagesOf(db, run));
    for (let ended = false; !ended; ) {
      const began = performance.now();
      for (const rank of overlay.hungry) {
        const next = await pages[rank]!.next();
        overlay.feed(rank, next.done === true ? null : next.value);
      }
      ended = overlay.run(limits.mergeSliceExtents);
      // Each insert is a durable commit: not for every few pages.
      if (ended || builder.readyCount >= limits.mergeInsertPages) {
        const ready = ended ? builder.end() : builder.take();
        for (const { page } of ready) written.pageBytes += page.length;
        await insertPages(db, id, ready);
      }
      await this.#rest(performance.now() - began);
    }
    return written;
  }

  async #rest(workedMs: number): Promise<void> {
    const before = performance.eventLoopUtilization();
    await pause(restAfterSliceMs(workedMs, this.#busyShare), undefined, { signal: this.#stop.signal });
    this.#busyShare = performance.eventLoopUtilization(before).utilization;
  }

  async #publish(
    id: number,
    level: number,
    inputs: StoredRun[],
    written: { extents: number; pageBytes: number },
  ): Promise<void> {
    await this.#catalog.transaction(async (tx) => {
      const ids = inputs.map((run) => run.id);
      const present = await tx.selectFrom('run').select('id').where('id', 'in', ids).execute();
      const gone = inputs.find((run) => !present.some((row) => row.id === run.id));
      if (gone !== undefined) throw new RunGoneError(gone);
      const change = { level, extents: written.extents, page_bytes: written.pageBytes };
      const { numUpdatedRows } = await tx
        .updateTable('run')
        .set(change)
        .where('id', '=', id)
        .where('level', '=', BUILDING)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) throw new RunGoneError(inputs[0]!);
    });
  }
}
