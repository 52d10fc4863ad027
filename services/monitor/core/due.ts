// When a check is due: each so often, at each snapshot, at each nth one [0094]. What was missed while nobody looked is
// made up once, by the newest moment, not once for each time. The state is plain JSON.
import { assert } from '@midmirror/basis';

export type Schedule =
  | { kind: 'every'; everyMs: number }
  | { kind: 'every-snapshot' }
  | { kind: 'nth-snapshot'; nth: number };

export interface DueState {
  readonly format: 1;
  /** Of `every`: when it was last due; the times after it are multiples of the interval from here. */
  readonly lastDueMs: number;
  /** The newest snapshot that was counted, and how many since one was due. */
  readonly lastSnapshotSeq: number;
  readonly snapshotsSince: number;
}

export interface MadeSnapshot {
  seq: number;
  madeAtMs: number;
}

export interface Due {
  /** A snapshot's moment, or the latest there is. */
  at: { seq: number } | 'latest';
  /** Times before this one that nobody was there for: made up by this one. */
  missed: number;
}

/** A schedule begins now: the first run by `every` at once, snapshots count from the next one on. */
export function startSchedule(schedule: Schedule, nowMs: number, newestSnapshotSeq: number): DueState {
  const lastDueMs = schedule.kind === 'every' ? nowMs - schedule.everyMs : nowMs;
  return { format: 1, lastDueMs, lastSnapshotSeq: newestSnapshotSeq, snapshotsSince: 0 };
}

/**
 * What is due by now, oldest first, and the state after it. `snapshots`: oldest first.
 * `lookingSinceMs`: since when somebody has looked; what was due before is made up once.
 */
export function dueNow(
  schedule: Schedule,
  state: DueState,
  now: { nowMs: number; lookingSinceMs: number; snapshots: readonly MadeSnapshot[] },
): { due: Due[]; state: DueState } {
  if (schedule.kind === 'every') return dueByTime(schedule.everyMs, state, now.nowMs);
  const nth = schedule.kind === 'nth-snapshot' ? schedule.nth : 1;
  assert(nth >= 1, 'a check is due at each first snapshot or more seldom');
  return dueBySnapshots(nth, state, now);
}

/** When to look again, as far as time alone tells. Null: a snapshot will tell. */
export function nextDueMs(schedule: Schedule, state: DueState): number | null {
  return schedule.kind === 'every' ? state.lastDueMs + schedule.everyMs : null;
}

function dueByTime(everyMs: number, state: DueState, nowMs: number): { due: Due[]; state: DueState } {
  // A clock that was set back must not make the schedule wait for the old time to come again.
  if (nowMs < state.lastDueMs) return { due: [], state: { ...state, lastDueMs: nowMs } };
  const times = Math.floor((nowMs - state.lastDueMs) / everyMs);
  if (times === 0) return { due: [], state };
  return {
    due: [{ at: 'latest', missed: times - 1 }],
    state: { ...state, lastDueMs: state.lastDueMs + times * everyMs },
  };
}

function dueBySnapshots(
  nth: number,
  state: DueState,
  { lookingSinceMs, snapshots }: { lookingSinceMs: number; snapshots: readonly MadeSnapshot[] },
): { due: Due[]; state: DueState } {
  let { lastSnapshotSeq, snapshotsSince } = state;
  let made: Due | null = null;
  const due: Due[] = [];
  for (const { seq, madeAtMs } of snapshots) {
    if (seq <= lastSnapshotSeq) continue;
    lastSnapshotSeq = seq;
    snapshotsSince += 1;
    if (snapshotsSince < nth) continue;
    snapshotsSince = 0;
    if (madeAtMs < lookingSinceMs) made = { at: { seq }, missed: made === null ? 0 : made.missed + 1 };
    else due.push({ at: { seq }, missed: 0 });
  }
  return {
    due: made === null ? due : [made, ...due],
    state: { ...state, lastSnapshotSeq, snapshotsSince },
  };
}
