// What the tape archiver tells of tapes and jobs when somebody looks. Five statements for all volumes together.
import type { Clock } from '@midmirror/basis';
import { activeVolumes, type CatalogReader, fromNs, toNs } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import type { Report } from '@midmirror/telemetry';
import { firstRunNs } from './core/schedule.ts';

/** What only the service knows. */
export interface TapeWatch {
  /** Since when the schedule of a volume holds, as for `isDue`; null: it does not know yet. */
  scheduledSinceNs(volumeId: string): bigint | null;
  /** Bytes that its jobs have put on media since the process began. */
  writtenBytes(volumeId: string): number;
}

const KINDS = ['image', 'difference'] as const;
const WAITING = ['queued', 'running'] as const;

interface Tally {
  /** By kind, without lost ones. */
  archives: Map<string, number>;
  bytes: number;
  lastNs: bigint;
  lost: number;
}

export async function reportTapes(
  report: Report,
  db: CatalogReader,
  clock: Clock,
  watch: TapeWatch,
): Promise<void> {
  const volumes = await activeVolumes(db);
  const tallies = await talliesByName(db);
  const failed = await lastFailedOf(db);
  const nowNs = clock.nowNs();
  const lastWrites = await lastWriteByVolume(db, nowNs);
  const waiting = await waitingByState(db);
  for (const state of WAITING) report('midmirror_tape_jobs', { state }, waiting.get(state) ?? 0);
  // Archives outlive their volumes, and may be all that is left of one.
  for (const name of new Set([...volumes.map((row) => row.name), ...tallies.keys()]))
    reportArchives(report, name, tallies.get(name) ?? emptyTally());
  for (const { id, name, policy } of volumes) {
    const volume = { volume: name };
    report('midmirror_tape_job_failed', volume, failed.has(id) ? 1 : 0);
    report('midmirror_tape_written_bytes_total', volume, watch.writtenBytes(id));
    const { tapeAt } = parsePolicy(JSON.parse(policy));
    const sinceNs = watch.scheduledSinceNs(id);
    if (tapeAt === null || sinceNs === null) continue;
    const runNs = firstRunNs(tapeAt, lastWrites.get(id) ?? null, sinceNs);
    const overdueNs = runNs === null || runNs > nowNs ? 0n : nowNs - runNs;
    report('midmirror_tape_overdue_seconds', volume, secondsOf(overdueNs));
  }
}

function reportArchives(report: Report, name: string, { archives, bytes, lastNs, lost }: Tally): void {
  const volume = { volume: name };
  for (const kind of KINDS) report('midmirror_tape_archives', { ...volume, kind }, archives.get(kind) ?? 0);
  report('midmirror_tape_bytes', volume, bytes);
  report('midmirror_tape_lost_archives', volume, lost);
  report('midmirror_tape_last_written_timestamp_seconds', volume, secondsOf(lastNs));
}

function emptyTally(): Tally {
  return { archives: new Map(), bytes: 0, lastNs: 0n, lost: 0 };
}

/** Volumes that had one name, one after the other, are one series. */
async function talliesByName(db: CatalogReader): Promise<Map<string, Tally>> {
  const rows = await db
    .selectFrom('tape_archive')
    .select((e) => [
      'volume_name',
      'kind',
      e.fn.countAll().as('all'),
      e.fn.count('lost_reason').as('lost'),
      e.fn.sum(e.case().when('lost_reason', 'is', null).then(e.ref('bytes')).else(0).end()).as('bytes'),
      e.fn.max(e.case().when('lost_reason', 'is', null).then(e.ref('created_ns')).end()).as('last_ns'),
    ])
    .groupBy(['volume_name', 'kind'])
    .execute();
  const tallies = new Map<string, Tally>();
  for (const { volume_name, kind, all, lost, bytes, last_ns } of rows) {
    const tally = tallies.get(volume_name) ?? emptyTally();
    tallies.set(volume_name, tally);
    tally.archives.set(kind, Number(all) - Number(lost));
    tally.lost += Number(lost);
    tally.bytes += Number(bytes);
    const lastNs = fromNs(last_ns ?? '0');
    if (lastNs > tally.lastNs) tally.lastNs = lastNs;
  }
  return tallies;
}

/** The volumes whose last job, of those that were not cancelled, failed. */
async function lastFailedOf(db: CatalogReader): Promise<Set<string>> {
  const ended = ['done', 'failed'];
  const rows = await db
    .selectFrom('tape_job')
    .innerJoin(
      (e) =>
        e
          .selectFrom('tape_job')
          .select((f) => ['volume_id', f.fn.max('ended_ns').as('last_ns')])
          .where('state', 'in', ended)
          .groupBy('volume_id')
          .as('last'),
      (join) =>
        join
          .onRef('last.volume_id', '=', 'tape_job.volume_id')
          .onRef('last.last_ns', '=', 'tape_job.ended_ns'),
    )
    .select('tape_job.volume_id')
    .where('tape_job.state', '=', 'failed')
    .execute();
  return new Set(rows.map(({ volume_id }) => volume_id));
}

/** When the last job that has written a tape was made, whoever wanted it; one made while the clock was ahead does not count. */
async function lastWriteByVolume(db: CatalogReader, nowNs: bigint): Promise<Map<string, bigint>> {
  const rows = await db
    .selectFrom('tape_job')
    .select((e) => ['volume_id', e.fn.max('created_ns').as('created_ns')])
    .where('task', '=', 'write')
    .where('state', '=', 'done')
    .where('created_ns', '<=', toNs(nowNs))
    .groupBy('volume_id')
    .execute();
  return new Map(rows.map(({ volume_id, created_ns }) => [volume_id, fromNs(created_ns)]));
}

async function waitingByState(db: CatalogReader): Promise<Map<string, number>> {
  const rows = await db
    .selectFrom('tape_job')
    .select((e) => ['state', e.fn.countAll().as('count')])
    .where('state', 'in', WAITING)
    .groupBy('state')
    .execute();
  return new Map(rows.map(({ state, count }) => [state, Number(count)]));
}

function secondsOf(ns: bigint): number {
  return Number(ns) / 1e9;
}
