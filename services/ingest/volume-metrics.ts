// What ingest tells of its volumes when somebody looks, and what is wrong with them.
import type { Clock } from '@midmirror/basis';
import type { Gap } from '@midmirror/point';
import type { Report } from '@midmirror/telemetry';
import type { IngestVolume } from './ingest-volume.ts';

/** As the metric has them: those of a journal that is not closed, and of a volume that could not be opened. */
const STATES = ['open', 'full', 'failed', 'lost', 'broken'] as const;

export function reportVolume(
  report: Report,
  { name, disk, gaps, meter }: IngestVolume,
  at: { clock: Clock; node: string; syncIntervalMs: number },
): void {
  const volume = { volume: name };
  reportState(report, name, disk.state.state, at.node);
  const { latestNs, waitingSinceNs } = disk.durability;
  const waitedNs = waitingSinceNs === 0n ? 0n : at.clock.nowNs() - waitingSinceNs;
  report('midmirror_recoverable_latest_timestamp_seconds', volume, Number(latestNs) / 1e9);
  report('midmirror_rpo_seconds', volume, Math.max(0, Number(waitedNs) / 1e9));
  report('midmirror_rpo_wanted_seconds', volume, at.syncIntervalMs / 1000);
  report('midmirror_gap_open_seconds', volume, openForSeconds(gaps.open, at.clock.nowNs()));
  report('midmirror_volume_size_bytes', volume, disk.sizeBytes);
  report('midmirror_writes_total', volume, disk.lastSeq);
  report('midmirror_written_bytes_total', volume, meter.writtenBytes);
  report('midmirror_write_errors_total', volume, meter.writeErrors);
  report('midmirror_write_latency_seconds', volume, meter.writes);
  report('midmirror_flush_latency_seconds', volume, meter.flushes);
  report('midmirror_journal_used_bytes', volume, disk.journalBytesUsed);
  report('midmirror_journal_limit_bytes', volume, disk.journalBytesMax);
  report('midmirror_journal_ring_used_ratio', volume, disk.ringShare);
  report('midmirror_journal_segments', volume, disk.segments.length);
  report('midmirror_head_map_bytes', volume, disk.headBytes);
}

/** An open gap may be told of with a time that is not over by this clock. */
function openForSeconds(gap: Gap | null, nowNs: bigint): number {
  return gap === null ? 0 : Math.max(0.001, Number(nowNs - gap.fromNs) / 1e9);
}

/** Of one that is served, and of one that could not be opened (`broken`). */
export function reportState(report: Report, name: string, state: string, node: string): void {
  for (const each of STATES)
    report('midmirror_volume_state', { volume: name, state: each }, each === state ? 1 : 0);
  const owned = state === 'open' || state === 'full' || state === 'failed';
  report('midmirror_volume_owner', { volume: name, node }, owned ? 1 : 0);
}

/** A volume that is lost is another's now: this process can do the rest of its job. */
export function troubleOf({ name, disk }: IngestVolume): string[] {
  const { state, reason } = disk.state;
  return state === 'full' || state === 'failed' ? [`volume ${name} is ${state}: ${reason}`] : [];
}
