// Tape jobs: rows of the catalogue that are done one after another for each library. One that was under way when the
// process ended is done again at the next start; its point is pinned until it has ended.
import { setTimeout as pause } from 'node:timers/promises';
import { againMs, isUnavailable, MidmirrorError, messageOf } from '@midmirror/basis';
import {
  type CatalogTransaction,
  forgetOldJobs,
  fromNs,
  pinPoint,
  refuseTooManyJobs,
  tapeJobOf,
  tapeJobPinIds,
  type TapeJobRow,
  toNs,
  unpinPoint,
} from '@midmirror/catalog';
import type { ToldTapeJob } from '@midmirror/events';
import type { TapeArchiverContext } from './context.ts';
import { limits } from './limits.ts';
import type { TapeProgress } from './process/protocol.ts';

export interface JobRun {
  signal: AbortSignal;
  onProgress: (progress: TapeProgress) => void;
}

/** What is done once a job has done its work: in the transaction that ends it. */
export type Ending = (tx: CatalogTransaction) => Promise<void>;

export interface JobEdges {
  /** Does the work of a job. */
  perform: (job: TapeJobRow, run: JobRun) => Promise<Ending>;
  /** It has ended, and the catalogue knows. */
  ended: (job: TapeJobRow, state: 'done' | 'failed' | 'cancelled') => Promise<void>;
}

export interface NewJob
  extends Pick<
    TapeJobRow,
    | 'task'
    | 'volume_id'
    | 'volume_name'
    | 'archive_id'
    | 'kind'
    | 'seq'
    | 'time_ns'
    | 'parent_id'
    | 'library'
    | 'cause'
  > {
  id: string;
  options: object;
  /** Write sequences of points that are held until the job has ended; null: it needs none. */
  pinned: { point: number | null; parent: number | null };
}

interface Running {
  id: string;
  cancel: AbortController;
  progress: { told: TapeProgress; bytesPerSecond: number } | null;
  /** Why it waits for another attempt. */
  waits: ToldTapeJob['error'];
  ended: Promise<void>;
}

/** Of one library: a job at a time. */
interface Queue {
  waiting: string[];
  /** Null: not begun yet. */
  working: Promise<void> | null;
}

export class Jobs {
  readonly #context: TapeArchiverContext;
  readonly #edges: JobEdges;
  readonly #queues = new Map<string, Queue>();
  readonly #running = new Map<string, Running>();
  readonly #stop = new AbortController();

  constructor(context: TapeArchiverContext, edges: JobEdges) {
    this.#context = context;
    this.#edges = edges;
  }

  /** Takes up what an earlier process left. */
  async resume(): Promise<void> {
    const rows = await this.#context.catalog.db
      .selectFrom('tape_job')
      .selectAll()
      .where('state', 'in', ['queued', 'running'])
      .orderBy('created_ns')
      .orderBy('id')
      .execute();
    for (const row of rows) this.#enqueue(row.library, row.id);
  }

  /** Durable, with its pin, when it resolves. Throws `point-unavailable` when the point can't be pinned any more. */
  async add({ options, pinned, ...job }: NewJob): Promise<ToldTapeJob> {
    const { catalog, clock } = this.#context;
    const nowNs = clock.nowNs();
    const row: TapeJobRow = {
      ...job,
      options: JSON.stringify(options),
      state: 'queued',
      created_ns: toNs(nowNs),
      ended_ns: null,
      error: null,
    };
    await catalog.transaction(async (tx) => {
      await refuseTooManyJobs(tx, 'tape_job', limits.jobsQueuedMax);
      const ids = tapeJobPinIds(job.id);
      const pin = { volumeId: job.volume_id, holder: 'tape', sinceNs: nowNs };
      if (pinned.point !== null) await pinPoint(tx, { ...pin, id: ids.point, seq: pinned.point });
      if (pinned.parent !== null) await pinPoint(tx, { ...pin, id: ids.parent, seq: pinned.parent });
      await tx.insertInto('tape_job').values(row).execute();
    });
    this.#context.reached('queued');
    this.#enqueue(row.library, row.id);
    return this.#told(row);
  }

  async list(job: string | null, limit: number): Promise<ToldTapeJob[]> {
    const { db } = this.#context.catalog;
    if (job !== null) return [this.#told(await tapeJobOf(db, job))];
    const rows = db.selectFrom('tape_job').selectAll().orderBy('created_ns', 'desc').orderBy('id');
    return (await rows.limit(Math.min(limit, limits.jobsListedMax)).execute()).map((row) => this.#told(row));
  }

  /** Resolves when it has ended. Throws `conflict` when it had before. */
  async cancel(id: string): Promise<ToldTapeJob> {
    const { db } = this.#context.catalog;
    if (!(await this.#breakOff(id))) {
      const row = await tapeJobOf(db, id);
      if (!(await this.#end(row, 'cancelled', null, async () => {}))) {
        const { state } = await tapeJobOf(db, id);
        throw new MidmirrorError('conflict', `tape job ${id} has ended already: it is ${state}`);
      }
      // Its turn may have come meanwhile.
      await this.#breakOff(id);
    }
    return this.#told(await tapeJobOf(db, id));
  }

  /** False: it is not under way. */
  async #breakOff(id: string): Promise<boolean> {
    const running = this.#running.get(id);
    if (running === undefined) return false;
    running.cancel.abort(new MidmirrorError('conflict', 'the job was cancelled'));
    await running.ended;
    return true;
  }

  /** What is under way is broken off, and done again at the next start. */
  async stop(): Promise<void> {
    this.#stop.abort(new MidmirrorError('unavailable', 'the tape archiver is stopping'));
    await Promise.all([...this.#queues.values()].map(({ working }) => working));
  }

  #enqueue(library: string, id: string): void {
    const queue = this.#queues.get(library) ?? { waiting: [], working: null };
    this.#queues.set(library, queue);
    queue.waiting.push(id);
    queue.working ??= this.#work(library, queue);
  }

  async #work(library: string, queue: Queue): Promise<void> {
    for (let id = queue.waiting.shift(); id !== undefined; id = queue.waiting.shift()) {
      if (this.#stop.signal.aborted) break;
      await this.#runToItsEnd(id);
    }
    this.#queues.delete(library);
  }

  /** Also when the catalogue is away as it begins or ends: its row and its pins must not be left. */
  async #runToItsEnd(id: string): Promise<void> {
    const { signal } = this.#stop;
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      try {
        return await this.#run(id);
      } catch (error) {
        this.#context.log(`tape job ${id}: ${messageOf(error)}`);
        if (attempt >= limits.attemptsMax && !isUnavailable(error)) return;
        await pause(againMs(attempt), undefined, { signal }).catch(() => {});
      }
    }
  }

  async #run(id: string): Promise<void> {
    const ended = Promise.withResolvers<void>();
    const running: Running = {
      id,
      cancel: new AbortController(),
      progress: null,
      waits: null,
      ended: ended.promise,
    };
    this.#running.set(id, running);
    try {
      // None: it was cancelled while it waited.
      const row = await this.#context.catalog.db
        .updateTable('tape_job')
        .set({ state: 'running' })
        .where('id', '=', id)
        .where('state', 'in', ['queued', 'running'])
        .returningAll()
        .executeTakeFirst();
      if (row !== undefined) await this.#attempts(row, running);
    } finally {
      this.#running.delete(id);
      ended.resolve();
    }
  }

  async #attempts(row: TapeJobRow, running: Running): Promise<void> {
    const ending = await this.#performed(row, running);
    if (ending === null) return;
    this.#context.reached(`${row.task}:performed`);
    try {
      await this.#end(row, 'done', null, ending);
    } catch (error) {
      if (isUnavailable(error)) throw error;
      await this.#end(row, 'failed', error, async () => {});
    }
  }

  /** Null: it has ended in another way, or the service stops. */
  async #performed(row: TapeJobRow, running: Running): Promise<Ending | null> {
    const signal = AbortSignal.any([this.#stop.signal, running.cancel.signal]);
    const meter = rateMeter();
    const onProgress = (told: TapeProgress): void => {
      running.progress = { told, bytesPerSecond: meter(told) };
      running.waits = null;
    };
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#edges.perform(row, { signal, onProgress });
      } catch (error) {
        if (this.#stop.signal.aborted) return null;
        const cancelled = running.cancel.signal.aborted;
        if (cancelled || !passes(error) || attempt === limits.attemptsMax) {
          const state = cancelled ? 'cancelled' : 'failed';
          await this.#end(row, state, cancelled ? null : error, async () => {});
          return null;
        }
        running.progress = null;
        running.waits = toldError(error);
        this.#context.log(`tape job ${row.id} waits: ${messageOf(error)}`);
        await pause(againMs(attempt), undefined, { signal }).catch(() => {});
      }
    }
  }

  /** False: it had ended before. What has been done is known all the same. */
  async #end(
    row: TapeJobRow,
    state: 'done' | 'failed' | 'cancelled',
    error: unknown,
    ending: Ending,
  ): Promise<boolean> {
    const { catalog, clock, log } = this.#context;
    const ended = await catalog.transaction(async (tx) => {
      const { state: before } = await tapeJobOf(tx, row.id);
      if (state !== 'done' && before !== 'queued' && before !== 'running') return false;
      await ending(tx);
      await unpinPoints(tx, row.id);
      await tx
        .updateTable('tape_job')
        .set({
          state,
          ended_ns: toNs(clock.nowNs()),
          error: error === null ? null : JSON.stringify(toldError(error)),
        })
        .where('id', '=', row.id)
        .execute();
      await forgetOldJobs(tx, 'tape_job', limits.jobsKept);
      return true;
    });
    if (!ended) return false;
    if (error !== null) log(`tape job ${row.id} of volume ${row.volume_name} failed: ${messageOf(error)}`);
    this.#context.reached(`${row.task}:${state}`);
    // Whatever comes of that, the job is over.
    await this.#edges
      .ended(row, state)
      .catch((wrong: unknown) => log(`after tape job ${row.id}: ${messageOf(wrong)}`));
    return true;
  }

  #told(row: TapeJobRow): ToldTapeJob {
    const running = this.#running.get(row.id);
    const progress = running?.progress ?? null;
    return {
      job: row.id,
      task: row.task as ToldTapeJob['task'],
      volumeId: row.volume_id,
      volume: row.volume_name,
      archive: row.archive_id,
      kind: row.kind as ToldTapeJob['kind'],
      seq: row.seq,
      timeNs: fromNs(row.time_ns).toString(),
      library: row.library,
      cause: row.cause as ToldTapeJob['cause'],
      state: row.state as ToldTapeJob['state'],
      createdNs: fromNs(row.created_ns).toString(),
      endedNs: row.ended_ns === null ? null : fromNs(row.ended_ns).toString(),
      error: row.error === null ? (running?.waits ?? null) : (JSON.parse(row.error) as ToldTapeJob['error']),
      progress:
        progress === null ? null : { ...progress.told, bytesPerSecond: Math.round(progress.bytesPerSecond) },
    };
  }
}

/** What may be over soon: the library or the appliance is away, or another writer has the library. */
function passes(error: unknown): boolean {
  return error instanceof MidmirrorError && (error.code === 'unavailable' || error.code === 'locked');
}

function toldError(error: unknown): NonNullable<ToldTapeJob['error']> {
  if (!(error instanceof MidmirrorError)) return { code: 'internal', message: messageOf(error), hint: null };
  return { code: error.code, message: error.message, hint: error.hint ?? null };
}

/** Bytes per second since the phase began. */
function rateMeter(): (progress: TapeProgress) => number {
  let phase = '';
  let sinceMs = 0;
  let firstBytes = 0;
  return ({ phase: now, bytesDone }) => {
    const ms = performance.now();
    if (now !== phase || bytesDone < firstBytes) [phase, sinceMs, firstBytes] = [now, ms, bytesDone];
    return ms === sinceMs ? 0 : ((bytesDone - firstBytes) * 1000) / (ms - sinceMs);
  };
}

async function unpinPoints(tx: CatalogTransaction, jobId: string): Promise<void> {
  const { point, parent } = tapeJobPinIds(jobId);
  for (const id of [point, parent]) await unpinPoint(tx, id);
}
