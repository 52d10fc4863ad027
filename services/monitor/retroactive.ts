// Retroactive checks: looks from time to time at what they go by, and walks over all that is kept when that is new. The walk
// and what notes that it was made are stored together: once for each, also over restarts.
import { createHash } from 'node:crypto';
import { MidmirrorError, messageOf, msOf } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { activeVolumeById, fromNs, type VolumeCheckRow, type VolumeRow } from '@midmirror/catalog';
import { type CheckJobs, RETROACTIVE } from './check-jobs.ts';
import { readyOf } from './checks.ts';
import type { MonitorContext } from './context.ts';
import { type RetroactiveState, retroactiveStep } from './core/retroactive.ts';
import { startWalk } from './core/walk.ts';
import { monitorLimits } from './limits.ts';
import type { Walk } from './tasks.ts';

export class RetroactiveWalks {
  readonly #context: Pick<MonitorContext, 'catalog' | 'bus' | 'clock' | 'log'>;
  readonly #jobs: Pick<CheckJobs, 'addAll'>;
  readonly #stop = new AbortController();
  /** What a check went by when it was looked at last, by its id here. */
  readonly #wentBy = new Map<string, string>();
  /** To be looked at before it is time for all. */
  #soon = new Set<string>();
  #lookedMs: number | null = null;
  #looking: Promise<void> | null = null;

  constructor(
    context: Pick<MonitorContext, 'catalog' | 'bus' | 'clock' | 'log'>,
    jobs: Pick<CheckJobs, 'addAll'>,
  ) {
    this.#context = context;
    this.#jobs = jobs;
  }

  /** One of them is new. */
  soon(volumeId: string, name: string): void {
    this.#soon.add(idOf(volumeId, name));
    void this.look();
  }

  /**
   * At each tick, which does not wait for it: what a check goes by may lie on a disk that is slow, or away. Never rejects;
   * does nothing while the one before goes on.
   */
  async look(): Promise<void> {
    if (this.#looking !== null || this.#stop.signal.aborted) return;
    const nowMs = this.#nowMs();
    // A clock that was set back must not put it off.
    const all =
      this.#lookedMs === null || Math.abs(nowMs - this.#lookedMs) >= monitorLimits.retroactiveLookMs;
    if (!all && this.#soon.size === 0) return;
    if (all) this.#lookedMs = nowMs;
    this.#looking = this.#lookAt(all)
      .catch((error: unknown) => this.#context.log(`retroactive checks: ${messageOf(error)}`))
      .finally(() => {
        this.#looking = null;
      });
    await this.#looking;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#looking;
  }

  async #lookAt(all: boolean): Promise<void> {
    const { db } = this.#context.catalog;
    const rows = await db
      .selectFrom('volume_check')
      .selectAll()
      .where('retroactive', 'is not', null)
      .execute();
    const there = new Set(rows.map(({ volume_id, name }) => idOf(volume_id, name)));
    for (const id of [...this.#soon, ...this.#wentBy.keys()])
      if (!there.has(id)) {
        this.#soon.delete(id);
        this.#wentBy.delete(id);
      }
    for (const check of rows) {
      if (this.#stop.signal.aborted) return;
      const id = idOf(check.volume_id, check.name);
      if (!all && !this.#soon.has(id)) continue;
      const volume = await activeVolumeById(db, check.volume_id);
      if (volume === undefined) continue;
      // One whose volume's owner is away keeps no other from its walk.
      const more = await this.#lookAtOne(id, volume, check).catch((error: unknown) => {
        this.#context.log(`retroactive check ${check.name} of ${volume.name}: ${messageOf(error)}`);
        return true;
      });
      if (!more) return;
    }
  }

  /** False: no more walks for now. */
  async #lookAtOne(id: string, volume: VolumeRow, check: VolumeCheckRow): Promise<boolean> {
    const ready = readyOf(check);
    const lacking = await ready.lacks();
    if (lacking !== null) {
      // By nothing all that is known would become what can't be told.
      this.#context.log(`retroactive check ${check.name} of ${volume.name} waits: ${lacking}`);
      this.#soon.delete(id);
      this.#wentBy.delete(id);
      return true;
    }
    const goesBy = createHash('sha256')
      .update(await ready.checkKey())
      .digest('hex');
    const wentBy = this.#wentBy.get(id) ?? null;
    this.#wentBy.set(id, goesBy);
    const walk = await this.#newestWalk(check);
    const look = { goesBy, wentBy, walk, nowMs: this.#nowMs(), againMs: monitorLimits.retroactiveAgainMs };
    const step = retroactiveStep(JSON.parse(check.retroactive!) as RetroactiveState, look);
    if (step === 'settle') {
      this.#soon.add(id);
      return true;
    }
    if (step === 'walk') {
      if ((await this.#unended()) >= monitorLimits.retroactiveQueuedMax) return false;
      await this.#begin(volume, check, goesBy);
    }
    this.#soon.delete(id);
    return true;
  }

  async #begin(volume: VolumeRow, check: VolumeCheckRow, goesBy: string): Promise<void> {
    const { seq } = await ask(this.#context.bus, 'ingest.publish', { volumeId: volume.id });
    const walk = startWalk({ from: 0, to: seq, every: 1, onward: true });
    const state: Walk = { walk, at: null, latest: seq };
    const walked: RetroactiveState = { format: 1, walkedBy: goesBy };
    const wish = { state, probesMax: 1, cause: RETROACTIVE };
    await this.#jobs.addAll('certify', volume, check.name, [wish], async (tx) => {
      const { numUpdatedRows } = await tx
        .updateTable('volume_check')
        .set({ retroactive: JSON.stringify(walked) })
        .where('volume_id', '=', volume.id)
        .where('name', '=', check.name)
        .where('created_ns', '=', check.created_ns)
        .executeTakeFirst();
      if (Number(numUpdatedRows) === 0)
        throw new MidmirrorError('not-found', `check "${check.name}" of ${volume.name} was taken away`);
    });
  }

  async #newestWalk(check: VolumeCheckRow): Promise<{ status: string; endedMs: number | null } | null> {
    const row = await this.#context.catalog.db
      .selectFrom('check_job')
      .select(['status', 'ended_ns'])
      .where('volume_id', '=', check.volume_id)
      .where('check_name', '=', check.name)
      .where('task', '=', 'certify')
      .where('cause', '=', RETROACTIVE)
      // Not of an earlier check by this name.
      .where('created_ns', '>=', check.created_ns)
      .orderBy('created_ns', 'desc')
      .limit(1)
      .executeTakeFirst();
    if (row === undefined) return null;
    return { status: row.status, endedMs: row.ended_ns === null ? null : msOf(fromNs(row.ended_ns)) };
  }

  async #unended(): Promise<number> {
    const row = await this.#context.catalog.db
      .selectFrom('check_job')
      .select((e) => e.fn.countAll<number>().as('n'))
      .where('task', '=', 'certify')
      .where('cause', '=', RETROACTIVE)
      .where('status', 'in', ['queued', 'running'])
      .executeTakeFirst();
    return Number(row?.n ?? 0);
  }

  #nowMs(): number {
    return msOf(this.#context.clock.nowNs());
  }
}

function idOf(volumeId: string, name: string): string {
  return `${volumeId} ${name}`;
}
