// The walk of FIG. 23 over past mirrors [0095]: forward in time while they are certified; from one that is condemned back
// until one is good, which is what to restore. Every mirror, or every second, third, … [0094]. Or onward, past condemned
// ones to the newest, for who wants to know it of each. The state is plain
// JSON and names moments, not places in a list: mirrors come and go while a walk goes on.
import { assert, MidmirrorError } from '@midmirror/basis';
import { walkLimits } from '../limits.ts';
import type { Verdict } from './verdict.ts';

export interface WalkQuestion {
  /** The first and the last moment to look at, as write sequences. `to` absent: as far as there are mirrors. */
  from: number;
  to?: number;
  /** 1: each mirror; 3: every third. */
  every: number;
  /** A condemned mirror does not turn it round. */
  onward?: boolean;
}

export interface WalkState {
  readonly format: 1;
  readonly from: number;
  readonly to: number | null;
  readonly every: number;
  /** Absent: it turns round. */
  readonly onward?: true;
  /** The newest mirror that going forward has looked at. */
  readonly reached: number | null;
  readonly lastGood: number | null;
  /** What turned the walk round: the first condemned mirror it came to. */
  readonly condemned: number | null;
  /** The oldest condemned one, found on the way back; of a walk onward the oldest after the last good one. */
  readonly firstBad: number | null;
  /** How many are condemned. */
  readonly badCount?: number;
  /** Of a walk onward: the oldest condemned one that has a good one after it. */
  readonly pastBad?: number;
  /** The oldest mirror that going back has looked at. */
  readonly backTo: number | null;
  /** Newest last, at most `cannotTellKept`; and how many in all. */
  readonly cannotTell: readonly number[];
  readonly cannotTellCount: number;
  readonly probes: number;
}

export type WalkStep =
  | { kind: 'probe'; seq: number }
  /** All there is has been looked at. When mirrors come later the walk goes on. */
  | { kind: 'all-looked-at'; lastGood: number | null }
  /** `restoreTo`: the last good mirror before the condemned ones; null: there is none. */
  | { kind: 'condemned'; condemned: number; firstBad: number; restoreTo: number | null };

/** Throws `bad-request` for a walk that can't be. */
export function startWalk({ from, to, every, onward = false }: WalkQuestion): WalkState {
  if (!Number.isSafeInteger(every) || every < 1)
    throw new MidmirrorError(
      'bad-request',
      `every ${every}: expected a whole number from 1 on (2 is every other mirror)`,
    );
  if (to !== undefined && to < from)
    throw new MidmirrorError('bad-request', `the walk ends (write ${to}) before it begins (write ${from})`);
  return {
    format: 1,
    from,
    to: to ?? null,
    every,
    ...(onward ? { onward } : {}),
    reached: null,
    lastGood: null,
    condemned: null,
    firstBad: null,
    backTo: null,
    cannotTell: [],
    cannotTellCount: 0,
    probes: 0,
  };
}

/** What to do next, with the mirrors that there are now: write sequences, oldest first. */
export function nextOfWalk(state: WalkState, mirrors: readonly number[]): WalkStep {
  if (state.condemned === null) return forward(state, mirrors);
  const { condemned, firstBad, backTo, lastGood } = state;
  assert(firstBad !== null && backTo !== null, 'a walk that turns has come to a condemned mirror');
  // Going back skips nothing: what the way forward left out may be good.
  const previous = mirrors.findLast((seq) => seq < backTo && seq > (lastGood ?? -1) && seq >= state.from);
  if (previous !== undefined) return { kind: 'probe', seq: previous };
  return { kind: 'condemned', condemned, firstBad, restoreTo: lastGood };
}

function forward(state: WalkState, mirrors: readonly number[]): WalkStep {
  const ahead = mirrors.filter(
    (seq) =>
      seq >= state.from &&
      (state.to === null || seq <= state.to) &&
      seq > (state.reached ?? Number.NEGATIVE_INFINITY),
  );
  const next = ahead[state.reached === null ? 0 : state.every - 1];
  return next === undefined
    ? { kind: 'all-looked-at', lastGood: state.lastGood }
    : { kind: 'probe', seq: next };
}

/** Notes the verdict of the mirror that `nextOfWalk` named. */
export function noteWalk(state: WalkState, seq: number, verdict: Verdict): WalkState {
  const probes = state.probes + 1;
  const untold =
    verdict !== 'cannot-tell'
      ? {}
      : {
          cannotTell: [...state.cannotTell, seq].slice(-walkLimits.cannotTellKept),
          cannotTellCount: state.cannotTellCount + 1,
        };
  const counted = {
    probes,
    ...untold,
    ...(verdict === 'bad' ? { badCount: (state.badCount ?? 0) + 1 } : {}),
  };
  if (state.onward) return { ...state, reached: seq, ...counted, ...noteOnward(state, seq, verdict) };
  if (state.condemned === null) {
    const turned = verdict === 'bad' ? { condemned: seq, firstBad: seq, backTo: seq } : {};
    const certified = verdict === 'good' ? { lastGood: seq } : {};
    return { ...state, reached: seq, ...counted, ...turned, ...certified };
  }
  // A good one on the way back is newer than the one that going forward saw last.
  if (verdict === 'good') return { ...state, ...counted, lastGood: seq };
  return { ...state, backTo: seq, ...counted, ...(verdict === 'bad' ? { firstBad: seq } : {}) };
}

function noteOnward({ firstBad, pastBad }: WalkState, seq: number, verdict: Verdict): Partial<WalkState> {
  if (verdict === 'bad') return { firstBad: firstBad ?? seq };
  if (verdict === 'cannot-tell') return {};
  const past = pastBad ?? firstBad;
  return { lastGood: seq, firstBad: null, ...(past === null ? {} : { pastBad: past }) };
}
