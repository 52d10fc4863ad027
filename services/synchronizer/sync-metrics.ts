// What the synchronizer tells of the volumes' MIMs, snapshots and windows when somebody looks. Four statements for all
// volumes together.
import type { Clock } from '@midmirror/basis';
import { activeVolumes, type CatalogReader, fromNs, toNs } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import type { Report } from '@midmirror/telemetry';
import type { SyncWatch } from './sync-watch.ts';

export async function reportSyncs(
  report: Report,
  db: CatalogReader,
  clock: Clock,
  watchOf: (volumeId: string) => SyncWatch | undefined,
): Promise<void> {
  const volumes = await activeVolumes(db);
  const snapshots = await snapshotsByVolume(db);
  const lastSyncs = await lastSyncByVolume(db);
  const oldest = await oldestUnsyncedByVolume(db);
  const nowNs = clock.nowNs();
  for (const row of volumes) {
    const volume = { volume: row.name };
    const policy = parsePolicy(JSON.parse(row.policy));
    const kept = snapshots.get(row.id);
    const earliestNs = kept !== undefined && kept.oldestNs < row.mim_ns ? kept.oldestNs : row.mim_ns;
    const windowNs = BigInt(policy.journalWindowSeconds) * 1_000_000_000n;
    const overdueNs = nowNs - windowNs - fromNs(oldest.get(row.id) ?? toNs(nowNs));
    report('midmirror_recoverable_earliest_timestamp_seconds', volume, secondsOf(earliestNs));
    report('midmirror_window_held_seconds', volume, Number(nowNs - fromNs(row.mim_ns)) / 1e9);
    report('midmirror_window_wanted_seconds', volume, policy.journalWindowSeconds);
    report('midmirror_snapshots', volume, kept?.count ?? 0);
    report('midmirror_volume_created_timestamp_seconds', volume, secondsOf(row.created_ns));
    report('midmirror_mim_sequence', volume, row.mim_seq);
    report('midmirror_mim_timestamp_seconds', volume, secondsOf(row.mim_ns));
    report('midmirror_sync_last_timestamp_seconds', volume, secondsOf(lastSyncs.get(row.id) ?? '0'));
    report('midmirror_sync_overdue_seconds', volume, Math.max(0, Number(overdueNs) / 1e9));
    report('midmirror_sync_interval_seconds', volume, policy.syncEverySeconds);
    const watch = watchOf(row.id);
    if (watch === undefined) continue;
    report('midmirror_syncs_total', volume, watch.applied);
    report('midmirror_sync_failures_total', volume, watch.failed);
    for (const [step, durations] of watch.steps)
      report('midmirror_sync_step_duration_seconds', { ...volume, step }, durations);
  }
}

async function snapshotsByVolume(
  db: CatalogReader,
): Promise<Map<string, { count: number; oldestNs: string }>> {
  const rows = await db
    .selectFrom('snapshot')
    .select((e) => ['volume_id', e.fn.countAll().as('count'), e.fn.min('time_ns').as('oldest_ns')])
    .groupBy('volume_id')
    .execute();
  return new Map(
    rows.map(({ volume_id, count, oldest_ns }) => [volume_id, { count: Number(count), oldestNs: oldest_ns }]),
  );
}

async function lastSyncByVolume(db: CatalogReader): Promise<Map<string, string | null>> {
  const rows = await db
    .selectFrom('sync')
    .select((e) => ['volume_id', e.fn.max('finished_ns').as('finished_ns')])
    .groupBy('volume_id')
    .execute();
  return new Map(rows.map(({ volume_id, finished_ns }) => [volume_id, finished_ns]));
}

/** Of the sealed segments that hold writes after the MIM point, when the first ended. */
async function oldestUnsyncedByVolume(db: CatalogReader): Promise<Map<string, string>> {
  const rows = await db
    .selectFrom('segment')
    .innerJoin('volume', 'volume.id', 'segment.volume_id')
    .select((e) => ['volume_id', e.fn.min('last_ns').as('last_ns')])
    .whereRef('last_seq', '>', 'mim_seq')
    .groupBy('volume_id')
    .execute();
  return new Map(rows.map(({ volume_id, last_ns }) => [volume_id, last_ns]));
}

function secondsOf(column: string): number {
  return Number(fromNs(column)) / 1e9;
}
