// Walks and searches as jobs: rows of the catalogue whose state is noted after each verdict, so that one that was cut off
// goes on where it stood.
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { againMs, isUnavailable, MidmirrorError, messageOf } from '@midmirror/basis';
import { tell } from '@midmirror/bus';
import {
  type CatalogTransaction,
  type CheckJobRow,
  checkOf,
  forgetOldJobs,
  fromNs,
  refuseTooManyJobs,
  restorePinId,
  toNs,
  unpinPoint,
  type VolumeCheckRow,
  type VolumeRow,
  volumeById,
} from '@midmirror/catalog';
import type { DomainEvent, ToldCheckEnd, ToldCheckJob } from '@midmirror/events';
import { type MonitorContext, SOURCE } from './context.ts';
import { monitorLimits, putBackLimits } from './limits.ts';
import type { Probed, Prober } from './prober.ts';
import { Slots } from './loops/slots.ts';
import { forgetVerdicts } from './verdict-keeping.ts';

/** A walk or a search over a job's volume, or its restore. Its state is plain JSON. */
export interface Task<State> {
  /** To its end, from the state that was kept. Null: it was stopped. */
  run(state: State, job: JobView, ports: TaskPorts<State>): Promise<ToldCheckEnd | null>;
  /** `reused`: verdicts given before that were taken instead of a probe. `max`: of both together. */
  probes(state: State): { made: number; reused: number; max: number | null };
  /** Of what it has written to the volume; null: nothing. */
  undoMark?(state: State): string | null;
  /** Told together with its end. */
  event?(
    state: State,
    about: { volumeId: string; check: string; timeNs: string },
    outcome: { end: ToldCheckEnd } | { failed: string },
  ): DomainEvent | null;
}

export interface TaskPorts<State> {
  probe(seq: number, signal: AbortSignal): Promise<Probed>;
  /** Whether a job of the monitor probes a point of the volume now. */
  isProbed(seq: number): boolean;
  /** Durable when done, together with the event. */
  keep(state: State, event?: DomainEvent): Promise<void>;
  /** Told of the job while it runs. */
  waits(why: NonNullable<ToldCheckJob['error']> | null): Promise<void>;
  signal: AbortSignal;
}

export interface JobWish {
  /** Of the task. */
  state: unknown;
  probesMax: number;
  cause: string;
}

export interface JobView {
  id: string;
  volume: VolumeRow;
  check: VolumeCheckRow;
  probesMax: number;
}

export type Tasks = { readonly [N in ToldCheckJob['task']]: Task<unknown> };

/** Walks that nobody waits for: they have few places, and all of them together one turn at each slot. What follows from them is none. */
export const RETROACTIVE = 'retroactive';

function isRetroactive({ task, cause }: Pick<CheckJobRow, 'task' | 'cause'>): boolean {
  return task === 'certify' && cause === RETROACTIVE;
}

interface Running {
  cancel: AbortController;
  ended: Promise<void>;
}

export class CheckJobs {
  readonly #context: MonitorContext;
  readonly #prober: Prober;
  readonly #tasks: Tasks;
  readonly #onEnd: (row: CheckJobRow, end: ToldCheckEnd) => Promise<void>;
  readonly #slots = new Slots(monitorLimits.jobsRunningMax);
  /** Those that wait for guests keep no check from running. */
  readonly #restoreSlots = new Slots(putBackLimits.jobsMax);
  /** Points of volumes that are probed now, and by how many. */
  readonly #probed = new Map<string, number>();
  readonly #retroactiveSlots = new Slots(monitorLimits.retroactiveRunningMax);
  readonly #running = new Map<string, Running>();
  readonly #stop = new AbortController();

  constructor(
    context: MonitorContext,
    prober: Prober,
    tasks: Tasks,
    onEnd: (row: CheckJobRow, end: ToldCheckEnd) => Promise<void>,
  ) {
    this.#context = context;
    this.#prober = prober;
    this.#tasks = tasks;
    this.#onEnd = onEnd;
  }

  async resume(): Promise<void> {
    const rows = await this.#context.catalog.db
      .selectFrom('check_job')
      .selectAll()
      .where('status', 'in', ['queued', 'running'])
      .orderBy('created_ns')
      .execute();
    for (const row of rows) this.#begin(row);
  }

  async add(
    task: ToldCheckJob['task'],
    volume: VolumeRow,
    check: string,
    wish: JobWish,
  ): Promise<ToldCheckJob> {
    return (await this.addAll(task, volume, check, [wish], async () => {}))[0]!;
  }

  /** All of them with what `also` stores, or nothing. */
  async addAll(
    task: ToldCheckJob['task'],
    volume: VolumeRow,
    check: string,
    wishes: readonly JobWish[],
    also: (tx: CatalogTransaction, ids: readonly string[]) => Promise<void>,
  ): Promise<ToldCheckJob[]> {
    const { catalog, clock } = this.#context;
    const rows = wishes.map(
      ({ state, probesMax, cause }): CheckJobRow => ({
        id: randomBytes(6).toString('hex'),
        task,
        volume_id: volume.id,
        volume_name: volume.name,
        check_name: check,
        probes_max: probesMax,
        state: JSON.stringify(state),
        cause,
        status: 'queued',
        created_ns: toNs(clock.nowNs()),
        ended_ns: null,
        result: null,
        error: null,
      }),
    );
    await catalog.transaction(async (tx) => {
      // Restores are one for a volume at most, and nobody is there to ask again.
      if (rows.length > 0 && task !== 'restore')
        await refuseTooManyJobs(tx, 'check_job', monitorLimits.jobsQueuedMax);
      for (const row of rows) await tx.insertInto('check_job').values(row).execute();
      await also(
        tx,
        rows.map(({ id }) => id),
      );
    });
    for (const row of rows) this.#begin(row);
    return rows.map((row) => this.#told(row));
  }

  async list(job: string | null, limit: number): Promise<ToldCheckJob[]> {
    const { db } = this.#context.catalog;
    if (job !== null) return [this.#told(await this.#rowOf(job))];
    const rows = db.selectFrom('check_job').selectAll().orderBy('created_ns', 'desc').orderBy('id');
    return (await rows.limit(Math.min(limit, monitorLimits.jobsListedMax)).execute()).map((row) =>
      this.#told(row),
    );
  }

  async cancel(id: string): Promise<ToldCheckJob> {
    const row = await this.#rowOf(id);
    const running = this.#running.get(id);
    if (running === undefined || (row.status !== 'queued' && row.status !== 'running'))
      throw new MidmirrorError('conflict', `job ${id} has ended already: it is ${row.status}`);
    running.cancel.abort(new MidmirrorError('conflict', 'the job was cancelled'));
    await running.ended;
    return this.#told(await this.#rowOf(id));
  }

  /** Those of a check that was taken away. */
  async cancelOf(volumeId: string, check: string): Promise<void> {
    const rows = await this.#unended(volumeId, check).execute();
    const running = rows.map(({ id }) => this.#running.get(id)).filter((each) => each !== undefined);
    for (const { cancel } of running)
      cancel.abort(new MidmirrorError('conflict', 'its check was taken away'));
    await Promise.all(running.map(({ ended }) => ended));
  }

  /** Whether a walk or a search of a check is queued or under way; not a retroactive one: it may take days. */
  async isBusy(volumeId: string, check: string): Promise<boolean> {
    const rows = await this.#unended(volumeId, check).select(['task', 'cause']).execute();
    return rows.some((row) => row.task !== 'restore' && !isRetroactive(row));
  }

  #unended(volumeId: string, check: string) {
    return this.#context.catalog.db
      .selectFrom('check_job')
      .select('id')
      .where('volume_id', '=', volumeId)
      .where('check_name', '=', check)
      .where('status', 'in', ['queued', 'running']);
  }

  async stop(): Promise<void> {
    this.#stop.abort(new MidmirrorError('unavailable', 'the monitor is stopping'));
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  async #rowOf(id: string): Promise<CheckJobRow> {
    const { db } = this.#context.catalog;
    const row = await db.selectFrom('check_job').selectAll().where('id', '=', id).executeTakeFirst();
    if (row !== undefined) return row;
    throw new MidmirrorError('not-found', `there is no job ${id} of the monitor`);
  }

  #begin(row: CheckJobRow): void {
    const { id, volume_id } = row;
    const cancel = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, cancel.signal]);
    const ended = this.#slotsOf(row)
      .within(volume_id, signal, () => this.#run(id, signal))
      .catch((error: unknown) => this.#failed(id, error))
      .catch((error: unknown) => this.#context.log(`job ${id}: ${messageOf(error)}`))
      .finally(() => this.#running.delete(id));
    this.#running.set(id, { cancel, ended });
  }

  async #run(id: string, signal: AbortSignal): Promise<void> {
    const { catalog } = this.#context;
    const row = await this.#rowOf(id);
    const volume = await volumeById(catalog.db, row.volume_id);
    const check = await checkOf(catalog.db, volume, row.check_name);
    const task = this.#taskOf(row);
    const job: JobView = { id, volume, check, probesMax: row.probes_max };
    const how = { queue: queueOf(row), alone: row.probes_max === 1 };
    const set = { status: 'running', error: null };
    await catalog.db.updateTable('check_job').set(set).where('id', '=', id).execute();
    let told: string | null = null;
    const end = await task.run(JSON.parse(row.state), job, {
      probe: (seq, stop) => this.#probe(volume, check, seq, { ...how, signal: stop }),
      isProbed: (seq) => this.#probed.has(`${volume.id} ${seq}`),
      keep: async (state, event) => {
        const kept = { state: JSON.stringify(state) };
        await catalog.transaction(async (tx) => {
          await tx.updateTable('check_job').set(kept).where('id', '=', id).execute();
          if (event !== undefined) await tell(this.#context.bus, tx, SOURCE, event);
        });
      },
      waits: async (why) => {
        const error = why === null ? null : JSON.stringify(why);
        if (error === told) return;
        told = error;
        await catalog.db.updateTable('check_job').set({ error }).where('id', '=', id).execute();
      },
      signal,
    });
    signal.throwIfAborted();
    if (end === null) throw new MidmirrorError('io', `job ${id} has ended without an end`);
    const conclude = async (): Promise<void> => {
      // Before it is done: cut off in between, it is done again, and finds what is there.
      await this.#onEnd(row, end);
      await forgetVerdicts(catalog, { volumeId: volume.id, check: check.name });
      await this.#end(id, 'done', { result: JSON.stringify(end) }, { end });
    };
    await againWhileAway(conclude, Number.POSITIVE_INFINITY, signal);
  }

  #slotsOf(row: CheckJobRow): Slots {
    if (row.task === 'restore') return this.#restoreSlots;
    return isRetroactive(row) ? this.#retroactiveSlots : this.#slots;
  }

  async #probe(
    volume: VolumeRow,
    check: VolumeCheckRow,
    seq: number,
    how: Parameters<Prober['probe']>[3],
  ): Promise<Probed> {
    const point = `${volume.id} ${seq}`;
    this.#probed.set(point, (this.#probed.get(point) ?? 0) + 1);
    try {
      const probe = () => this.#prober.probe(volume, check, seq, how);
      return await againWhileAway(probe, monitorLimits.attemptsMax, how.signal);
    } finally {
      const others = this.#probed.get(point)! - 1;
      if (others > 0) this.#probed.set(point, others);
      else this.#probed.delete(point);
    }
  }

  async #failed(id: string, error: unknown): Promise<void> {
    if (this.#stop.signal.aborted) return; // it goes on at the next start
    const cancelled = this.#running.get(id)?.cancel.signal;
    if (cancelled?.aborted)
      return await this.#end(id, 'cancelled', {}, { failed: messageOf(cancelled.reason) });
    const { code, hint } = error instanceof MidmirrorError ? error : { code: 'internal', hint: undefined };
    const told = { code, message: messageOf(error), hint: hint ?? null };
    this.#context.log(`job ${id}: ${told.message}`);
    await this.#end(id, 'failed', { error: JSON.stringify(told) }, { failed: told.message });
  }

  async #end(
    id: string,
    status: 'done' | 'failed' | 'cancelled',
    { result, error }: { result?: string; error?: string },
    outcome: { end: ToldCheckEnd } | { failed: string },
  ): Promise<void> {
    const { catalog, clock, bus } = this.#context;
    const nowNs = clock.nowNs();
    await catalog.transaction(async (tx) => {
      const row = await tx
        .updateTable('check_job')
        .set({ status, ended_ns: toNs(nowNs), result: result ?? null, error: error ?? null })
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirst();
      await unpinPoint(tx, restorePinId(id));
      if (row !== undefined) {
        const about = { volumeId: row.volume_id, check: row.check_name, timeNs: nowNs.toString() };
        const event = this.#taskOf(row).event?.(JSON.parse(row.state), about, outcome);
        if (event !== undefined && event !== null) await tell(bus, tx, SOURCE, event);
      }
      await forgetOldJobs(tx, 'check_job', monitorLimits.jobsKept);
    });
  }

  #taskOf({ task }: CheckJobRow): Task<unknown> {
    return this.#tasks[task as ToldCheckJob['task']];
  }

  #told(row: CheckJobRow): ToldCheckJob {
    const task = this.#taskOf(row);
    const state: unknown = JSON.parse(row.state);
    const { made, reused, max } = task.probes(state);
    return {
      job: row.id,
      task: row.task as ToldCheckJob['task'],
      volumeId: row.volume_id,
      volume: row.volume_name,
      check: row.check_name,
      cause: row.cause,
      status: row.status as ToldCheckJob['status'],
      createdNs: fromNs(row.created_ns).toString(),
      endedNs: row.ended_ns === null ? null : fromNs(row.ended_ns).toString(),
      probes: made,
      reused,
      probesMax: max,
      undoMark: task.undoMark?.(state) ?? null,
      end: row.result === null ? null : (JSON.parse(row.result) as ToldCheckEnd),
      error: row.error === null ? null : (JSON.parse(row.error) as ToldCheckJob['error']),
    };
  }
}

function queueOf(row: CheckJobRow): string {
  return isRetroactive(row) ? RETROACTIVE : row.volume_id;
}

/** What needs the appliance, the bus or the catalogue. */
async function againWhileAway<T>(
  act: () => Promise<T>,
  attemptsMax: number,
  signal: AbortSignal,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await act();
    } catch (error) {
      signal.throwIfAborted();
      if (!isUnavailable(error) || attempt === attemptsMax) throw error;
      await pause(againMs(attempt), undefined, { signal });
    }
  }
}
