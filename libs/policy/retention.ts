// Which snapshots a policy keeps: the newest few, and the last of each hour, day, week, month and year.
import type { VolumePolicy } from './volume-policy.ts';

export interface RetentionCandidate {
  snapshot: number;
  timeNs: bigint;
  /** Pinned, marked or still open: kept whatever the policy says. */
  held: boolean;
}

type Bucket = (date: Date) => string;

const HOUR: Bucket = (date) => date.toISOString().slice(0, 13);
const DAY: Bucket = (date) => date.toISOString().slice(0, 10);
const MONTH: Bucket = (date) => date.toISOString().slice(0, 7);
const YEAR: Bucket = (date) => date.toISOString().slice(0, 4);
/** Weeks begin on Monday. The epoch was a Thursday. */
const WEEK: Bucket = (date) => String(Math.floor((date.getTime() / 86_400_000 + 3) / 7));

/** The numbers of the snapshots to keep. Times are taken in UTC. */
export function keptSnapshots(candidates: readonly RetentionCandidate[], policy: VolumePolicy): Set<number> {
  const newestFirst = [...candidates].sort((a, b) => (a.timeNs < b.timeNs ? 1 : -1));
  const kept = new Set<number>();
  for (const candidate of newestFirst) if (candidate.held) kept.add(candidate.snapshot);
  for (const candidate of newestFirst.slice(0, policy.keepLast)) kept.add(candidate.snapshot);
  const rules: [Bucket, number][] = [
    [HOUR, policy.keepHourly],
    [DAY, policy.keepDaily],
    [WEEK, policy.keepWeekly],
    [MONTH, policy.keepMonthly],
    [YEAR, policy.keepYearly],
  ];
  for (const [bucket, count] of rules) {
    const seen = new Set<string>();
    for (const { snapshot, timeNs } of newestFirst) {
      const name = bucket(new Date(Number(timeNs / 1_000_000n)));
      if (seen.has(name)) continue;
      if (seen.size === count) break;
      seen.add(name);
      kept.add(snapshot);
    }
  }
  return kept;
}
