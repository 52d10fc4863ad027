// What a policy keeps of a row of points, snapshots or tapes: the newest few, and the last of each hour, day, week,
// month and year (grandfather, father, son). One rule for both; only the numbers differ.
import { msOf } from '@midmirror/basis';
import type { VolumePolicy } from './volume-policy.ts';

export interface RetentionCandidate<Id> {
  id: Id;
  timeNs: bigint;
  /** Kept whatever the numbers say. */
  held: boolean;
}

/** How many of each are kept. */
export interface Keep {
  last: number;
  hourly: number;
  daily: number;
  weekly: number;
  monthly: number;
  yearly: number;
}

export type Rule = keyof Keep;
/** Why it is kept; of several reasons the first, in the order of `Keep`. */
export type Kept = 'held' | Rule;

type Bucket = (date: Date) => string;

const BUCKETS: Record<Exclude<Rule, 'last'>, Bucket> = {
  hourly: (date) => date.toISOString().slice(0, 13),
  daily: (date) => date.toISOString().slice(0, 10),
  /** Weeks begin on Monday. The epoch was a Thursday. */
  weekly: (date) => String(Math.floor((date.getTime() / 86_400_000 + 3) / 7)),
  monthly: (date) => date.toISOString().slice(0, 7),
  yearly: (date) => date.toISOString().slice(0, 4),
};

/** What is kept and why. Times are taken in UTC; of equal times the later in the list is the newer. */
export function kept<Id>(candidates: readonly RetentionCandidate<Id>[], keep: Keep): Map<Id, Kept> {
  const newestFirst = candidates
    .toReversed()
    .sort((a, b) => (a.timeNs < b.timeNs ? 1 : a.timeNs > b.timeNs ? -1 : 0));
  const found = new Map<Id, Kept>();
  const add = (id: Id, why: Kept): void => {
    if (!found.has(id)) found.set(id, why);
  };
  for (const { id, held } of newestFirst) if (held) add(id, 'held');
  for (const { id } of newestFirst.slice(0, keep.last)) add(id, 'last');
  for (const [rule, bucket] of Object.entries(BUCKETS) as [keyof typeof BUCKETS, Bucket][]) {
    const seen = new Set<string>();
    for (const { id, timeNs } of newestFirst) {
      const name = bucket(new Date(msOf(timeNs)));
      if (seen.has(name)) continue;
      if (seen.size === keep[rule]) break;
      seen.add(name);
      add(id, rule);
    }
  }
  return found;
}

function snapshotKeep(policy: VolumePolicy): Keep {
  return {
    last: policy.keepLast,
    hourly: policy.keepHourly,
    daily: policy.keepDaily,
    weekly: policy.keepWeekly,
    monthly: policy.keepMonthly,
    yearly: policy.keepYearly,
  };
}

export function tapeKeep(policy: VolumePolicy): Keep {
  return {
    last: policy.tapeKeepLast,
    hourly: 0,
    daily: policy.tapeKeepDaily,
    weekly: policy.tapeKeepWeekly,
    monthly: policy.tapeKeepMonthly,
    yearly: policy.tapeKeepYearly,
  };
}

export interface SnapshotCandidate {
  snapshot: number;
  timeNs: bigint;
  /** Pinned, marked or still open: kept whatever the policy says. */
  held: boolean;
}

/** The numbers of the snapshots to keep. */
export function keptSnapshots(candidates: readonly SnapshotCandidate[], policy: VolumePolicy): Set<number> {
  const items = candidates.map(({ snapshot, timeNs, held }) => ({ id: snapshot, timeNs, held }));
  return new Set(kept(items, snapshotKeep(policy)).keys());
}
