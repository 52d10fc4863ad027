// Which runs to merge: pure. On both sides of the MIM eight neighbours of a level become one run of the next, the
// oldest first; all levels stay, so that what begins or ends at any run is covered by a few runs of each level
// (O(log history)).
import type { StoredRun } from '@midmirror/catalog';

/** What tiers look at. `first` and `last` count segments (forward) or snapshots (backward). */
export interface TierRun {
  level: number;
  first: number;
  last: number;
}

export const TIER_WIDTH = 8;

export function tierRunOf(run: StoredRun): TierRun & { run: StoredRun } {
  return run.side === 'forward'
    ? { level: run.level, first: run.first_source, last: run.source, run }
    : { level: run.level, first: run.snapshot, last: run.last_snapshot, run };
}

/**
 * The next runs to merge, neighbours of one level, in order; null: nothing to do. `runs` are whole and of one side,
 * those of level 0 that may not be merged yet left out. Backward, one snapshot may have several runs of level 0:
 * they go together.
 */
export function nextMerge<T extends TierRun>(runs: readonly T[]): { level: number; inputs: T[] } | null {
  const top = runs.reduce((level, run) => Math.max(level, run.level), 0);
  for (let level = 0; level <= top; level += 1) {
    const above = runs.filter((run) => run.level === level + 1).sort(byFirst);
    const here = runs.filter((run) => run.level === level).sort(byFirst);
    for (const stretch of uncovered(here, above)) {
      const groups = byUnit(stretch.runs);
      // In the middle of history no more neighbours will come: what a drop has left there is merged as it is.
      const enough = groups.length >= TIER_WIDTH || !stretch.atEnd;
      if (enough) return { level: level + 1, inputs: groups.slice(0, TIER_WIDTH).flat() };
    }
  }
  return null;
}

interface Stretch<T> {
  runs: T[];
  /** Nothing of the level above lies after it. */
  atEnd: boolean;
}

/** Runs of a level that no run of the next covers, cut where one lies between. */
function uncovered<T extends TierRun>(here: readonly T[], above: readonly T[]): Stretch<T>[] {
  const stretches: Stretch<T>[] = [];
  let at = 0;
  let runs: T[] = [];
  for (const run of here) {
    while (at < above.length && above[at]!.last < run.first) {
      if (runs.length > 0) stretches.push({ runs, atEnd: false });
      runs = [];
      at += 1;
    }
    if (at < above.length && run.first >= above[at]!.first) continue;
    runs.push(run);
  }
  if (runs.length > 0) stretches.push({ runs, atEnd: at === above.length });
  return stretches;
}

/** Runs that share their unit together. */
function byUnit<T extends TierRun>(runs: readonly T[]): T[][] {
  const groups: T[][] = [];
  for (const run of runs) {
    const group = groups.at(-1);
    if (group !== undefined && group[0]!.first === run.first) group.push(run);
    else groups.push([run]);
  }
  return groups;
}

function byFirst(a: TierRun, b: TierRun): number {
  return a.first - b.first;
}
