// What the monitor tells of checks, verdicts and jobs when somebody looks. Two statements for all volumes together, and one
// for each check by snapshots; of each check only its newest points are looked at, by their index.
import { type Clock, msOf } from '@midmirror/basis';
import { type CatalogReader, fromNs } from '@midmirror/catalog';
import type { Report } from '@midmirror/telemetry';
import { scheduleOf } from './checks.ts';
import { dueNow, nextDueMs } from './core/due.ts';
import type { Verdict } from './core/verdict.ts';

/** What only the service knows, since the process began. */
export interface ProbeCounts {
  probes: Record<Verdict, number>;
  /** Verdicts of other points that were taken instead of a probe. */
  reused: number;
}

export function noProbes(): ProbeCounts {
  return { probes: { good: 0, bad: 0, 'cannot-tell': 0 }, reused: 0 };
}

const WAITING = ['queued', 'running'] as const;

export async function reportChecks(
  report: Report,
  db: CatalogReader,
  clock: Clock,
  { probes, reused }: ProbeCounts,
): Promise<void> {
  for (const verdict of ['good', 'bad', 'cannot-tell'] as const)
    report('midmirror_check_probes_total', { verdict }, probes[verdict]);
  report('midmirror_check_reused_total', {}, reused);
  const rows = await checkRows(db);
  const jobs = await jobsOf(db);
  for (const state of WAITING) report('midmirror_check_jobs', { state }, jobs.waiting[state]);
  const nowMs = msOf(clock.nowNs());
  const counts = new Map<string, number>();
  for (const row of rows) {
    const { volume, volume_id, name } = row;
    counts.set(volume, (counts.get(volume) ?? 0) + (name === null ? 0 : 1));
    if (name === null) continue;
    const labels = { volume, check: name };
    const job = jobs.of.get(`${volume_id} ${name}`) ?? NO_JOB;
    const lastGood = row.good_ns === null ? 0 : secondsOf(row.good_ns);
    report('midmirror_check_last_good_timestamp_seconds', labels, lastGood);
    report('midmirror_check_condemned', labels, row.told === 'bad' ? 1 : 0);
    const cannotTell = row.newest === 'cannot-tell' || job.lastFailed;
    report('midmirror_check_cannot_tell', labels, cannotTell ? 1 : 0);
    const restoreMs = job.restoreWaitsSinceMs === null ? 0 : Math.max(0, nowMs - job.restoreWaitsSinceMs);
    report('midmirror_check_restore_waiting_seconds', labels, restoreMs / 1000);
    const stands = scheduleOf({ schedule: row.schedule, due: row.due });
    if (stands === null) continue;
    const sinceMs = job.dueSinceMs ?? (await dueSinceMs(db, volume_id, stands, nowMs)) ?? nowMs;
    report('midmirror_check_overdue_seconds', labels, Math.max(0, nowMs - sinceMs) / 1000);
    if (stands.schedule.kind === 'every')
      report('midmirror_check_interval_seconds', labels, stands.schedule.everyMs / 1000);
  }
  for (const [volume, count] of counts) report('midmirror_checks', { volume }, count);
}

/** One for each check, and one without a check for a volume that has none. */
async function checkRows(db: CatalogReader) {
  return await db
    .selectFrom('volume')
    .leftJoin('volume_check', 'volume_check.volume_id', 'volume.id')
    .where('volume.state', '=', 'active')
    .select((e) => {
      const verdicts = e
        .selectFrom('verdict')
        .whereRef('verdict.volume_id', '=', 'volume_check.volume_id')
        .whereRef('verdict.check_name', '=', 'volume_check.name')
        .orderBy('verdict.seq', 'desc')
        .limit(1);
      return [
        ...(['volume.id as volume_id', 'volume.name as volume', 'volume_check.name as name'] as const),
        ...(['volume_check.schedule', 'volume_check.due'] as const),
        verdicts.where('verdict.verdict', '=', 'good').select('verdict.time_ns').as('good_ns'),
        // What could not be told says nothing against what was told before.
        verdicts.where('verdict.verdict', '<>', 'cannot-tell').select('verdict.verdict').as('told'),
        verdicts.select('verdict.verdict').as('newest'),
      ];
    })
    .orderBy('volume.name')
    .orderBy('volume_check.name')
    .execute();
}

interface JobsOfCheck {
  /** The oldest that the schedule made and that has not ended. */
  dueSinceMs: number | null;
  /** Whether the last that has ended failed; those that people cancelled do not count. */
  lastFailed: boolean;
  /** When a restore was made that says for what it waits. */
  restoreWaitsSinceMs: number | null;
}

const NO_JOB: JobsOfCheck = { dueSinceMs: null, lastFailed: false, restoreWaitsSinceMs: null };

/** By volume and check. */
async function jobsOf(
  db: CatalogReader,
): Promise<{ waiting: Record<(typeof WAITING)[number], number>; of: Map<string, JobsOfCheck> }> {
  const rows = await db
    .selectFrom('check_job')
    .select(['volume_id', 'check_name', 'task', 'status', 'cause', 'created_ns', 'error'])
    .where('status', '<>', 'cancelled')
    .orderBy('ended_ns')
    .execute();
  const waiting = { queued: 0, running: 0 };
  const of = new Map<string, JobsOfCheck>();
  for (const { volume_id, check_name, task, status, cause, created_ns, error } of rows) {
    const key = `${volume_id} ${check_name}`;
    const job = of.get(key) ?? { ...NO_JOB };
    of.set(key, job);
    if (task === 'restore') {
      if (status === 'running' && error !== null) job.restoreWaitsSinceMs = msOf(fromNs(created_ns));
      continue;
    }
    if (status !== 'queued' && status !== 'running') {
      job.lastFailed = status === 'failed';
      continue;
    }
    waiting[status] += 1;
    const createdMs = msOf(fromNs(created_ns));
    if (cause === 'schedule') job.dueSinceMs = Math.min(job.dueSinceMs ?? createdMs, createdMs);
  }
  return { waiting, of };
}

/** Since when the schedule has wanted one that nobody has begun; null: it wants none. */
async function dueSinceMs(
  db: CatalogReader,
  volumeId: string,
  { schedule, due }: NonNullable<ReturnType<typeof scheduleOf>>,
  nowMs: number,
): Promise<number | null> {
  const nextMs = nextDueMs(schedule, due);
  if (nextMs !== null) return nextMs <= nowMs ? nextMs : null;
  const made = await db
    .selectFrom('snapshot')
    .select(['seq', 'opened_ns'])
    .where('volume_id', '=', volumeId)
    .where('seq', '>', due.lastSnapshotSeq)
    .orderBy('seq')
    .execute();
  const snapshots = made.map(({ seq, opened_ns }) => ({
    seq,
    madeAtMs: msOf(fromNs(opened_ns)),
  }));
  // As if somebody had looked all the time: the first that is due tells since when.
  const first = dueNow(schedule, due, { nowMs, lookingSinceMs: 0, snapshots }).due[0]?.at;
  if (first === undefined || first === 'latest') return null;
  return snapshots.find(({ seq }) => seq === first.seq)?.madeAtMs ?? null;
}

function secondsOf(ns: string): number {
  return Number(fromNs(ns)) / 1e9;
}
