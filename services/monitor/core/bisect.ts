// The search for the first bad write: git-bisect for a disk. Moments are write sequences; the caller probes the moments
// that `nextProbes` names and notes each verdict, in any order. The state is plain JSON, so a search can go on after a
// restart. The naive twin stands in test/naive-bisect.ts.
import { assert, MidmirrorError } from '@midmirror/basis';
import { bisectLimits } from '../limits.ts';
import { fractionOf, spread } from './spread.ts';
import type { Verdict } from './verdict.ts';

export interface BisectQuestion {
  /** The moment that is good, or from which on to look, and the one that is bad, or up to which. */
  good: number;
  bad: number;
  /** False: it is only assumed, and probed first. */
  goodKnown: boolean;
  badKnown: boolean;
  /** Moments that are cheaper to probe, as snapshots are. They are preferred where the bound allows it. */
  coarse?: readonly number[];
  /** Verdicts of the same check from before. */
  known?: readonly { seq: number; verdict: Verdict }[];
}

export interface BisectAnswer {
  readonly seq: number;
  readonly verdict: Verdict;
  /** False: it was known before the search. */
  readonly probed: boolean;
}

export interface BisectState {
  readonly format: 1;
  readonly low: number;
  readonly high: number;
  readonly coarse: readonly number[];
  readonly answers: readonly BisectAnswer[];
  /** Moments that were told good once and bad once: they can't be told. */
  readonly unsteady: readonly number[];
  /** Probes that a search for one write takes at most, one at a time, when each comes to a verdict. */
  readonly probesMax: number;
}

export type BisectEnd =
  | { kind: 'found'; lastGood: number; firstBad: number }
  /** Null: no such moment was met. `complete`: each moment between can't be told; else too many of them couldn't. */
  | { kind: 'range'; lastGood: number | null; firstBad: number | null; cannotTell: number; complete: boolean }
  /** The newest moment is good: nothing to look for. */
  | { kind: 'nothing-bad'; at: number }
  /** The oldest moment is bad already. */
  | { kind: 'nothing-good'; at: number };

export interface BisectStep {
  /** Probes to start now. */
  start: number[];
  /** Running ones that can no longer tell anything new. */
  stop: number[];
  /** Null: it goes on. */
  end: BisectEnd | null;
}

/** Throws `bad-request` when the moments are none, or the wrong way round. */
export function startBisect(question: BisectQuestion): BisectState {
  const { good, bad, goodKnown, badKnown } = question;
  for (const [name, seq] of [
    ['good', good],
    ['bad', bad],
  ] as const)
    if (!Number.isSafeInteger(seq) || seq < 0)
      throw new MidmirrorError('bad-request', `the ${name} point is write ${seq}; expected a write sequence`);
  if (good >= bad)
    throw new MidmirrorError(
      'bad-request',
      `the good point (write ${good}) is not before the bad one (write ${bad}); a search needs an older good point and a newer bad one`,
    );
  const coarse = [...new Set(question.coarse ?? [])].filter((seq) => seq > good && seq < bad);
  let state: BisectState = {
    format: 1,
    low: good,
    high: bad,
    coarse: coarse.sort((a, b) => a - b),
    answers: [],
    unsteady: [],
    probesMax: 0,
  };
  if (goodKnown) state = note(state, { seq: good, verdict: 'good', probed: false });
  if (badKnown) state = note(state, { seq: bad, verdict: 'bad', probed: false });
  for (const { seq, verdict } of question.known ?? [])
    if (seq >= good && seq <= bad && verdict !== 'cannot-tell')
      state = note(state, { seq, verdict, probed: false });
  return { ...state, probesMax: probesMaxOf(state) };
}

/** Notes the verdict of a probe. A second one of the same moment that says otherwise makes it untellable. */
export function noteVerdict(state: BisectState, seq: number, verdict: Verdict): BisectState {
  assert(Number.isSafeInteger(seq) && seq >= state.low && seq <= state.high, `write ${seq} is looked for`);
  return note(state, { seq, verdict, probed: true });
}

/**
 * What to do now: `running` are the probes under way, `jobs` how many there may be. A search that has ended starts
 * nothing.
 */
export function nextProbes(state: BisectState, running: readonly number[], jobs: number): BisectStep {
  const range = rangeOf(state);
  const end = endOf(state, range);
  if (end !== null) return { start: [], stop: [...running], end };
  const ends = endsWanted(state, range);
  const useful = running.filter((seq) => ends.includes(seq) || (seq > range.low && seq < range.high));
  const stop = running.filter((seq) => !useful.includes(seq));
  const free = Math.max(0, jobs - useful.length);
  const start =
    ends.length > 0
      ? ends.filter((seq) => !useful.includes(seq)).slice(0, free)
      : probesWithin(state, range, useful, free);
  return { start, stop, end: null };
}

/** Probes that were made, those without a verdict included. */
export function probesMade(state: BisectState): number {
  return state.answers.reduce((count, { probed }) => count + (probed ? 1 : 0), 0) + state.unsteady.length;
}

/** Bad moments with a good one after them, and that one: what the search presumes not to be. Oldest first. */
export function notMonotone(state: BisectState): { bad: number; good: number }[] {
  const ordered = [...state.answers].sort((a, b) => a.seq - b.seq);
  const found: { bad: number; good: number }[] = [];
  let good: number | null = null;
  for (const { seq, verdict } of ordered.reverse())
    if (verdict === 'good') good = seq;
    else if (verdict === 'bad' && good !== null) found.push({ bad: seq, good });
  return found.reverse();
}

interface Range {
  /** The newest good moment; null: none is known, and `low` is where the search began. */
  good: number | null;
  /** The oldest bad moment after it; null: none is known, and `high` is where the search ends. */
  bad: number | null;
  low: number;
  high: number;
  /** Moments between them that can't be told. */
  untellable: ReadonlySet<number>;
}

/** The newest change from good to bad: what came before the newest good moment is not what made it bad now. */
function rangeOf(state: BisectState): Range {
  let good: number | null = null;
  for (const { seq, verdict } of state.answers)
    if (verdict === 'good' && (good === null || seq > good)) good = seq;
  let bad: number | null = null;
  for (const { seq, verdict } of state.answers)
    if (verdict === 'bad' && (good === null || seq > good) && (bad === null || seq < bad)) bad = seq;
  const low = good ?? state.low;
  const high = bad ?? state.high;
  const untellable = new Set<number>();
  for (const { seq, verdict } of state.answers)
    if (verdict === 'cannot-tell' && seq > low && seq < high) untellable.add(seq);
  return { good, bad, low, high, untellable };
}

function endOf(state: BisectState, range: Range): BisectEnd | null {
  const { good, bad, low, high, untellable } = range;
  if (good === state.high) return { kind: 'nothing-bad', at: good };
  if (good === null && bad === state.low) return { kind: 'nothing-good', at: bad };
  if (endsWanted(state, range).length > 0) return null;
  if (good !== null && bad !== null && bad === good + 1)
    return { kind: 'found', lastGood: good, firstBad: bad };
  const complete = high - low - 1 <= untellable.size;
  if (complete || untellable.size >= bisectLimits.cannotTellMax)
    return { kind: 'range', lastGood: good, firstBad: bad, cannotTell: untellable.size, complete };
  return null;
}

/** The bad end first: when it is good there is nothing to look for. */
function endsWanted(state: BisectState, { good, bad }: Range): number[] {
  const wanted: number[] = [];
  if (bad === null && !isAnswered(state, state.high)) wanted.push(state.high);
  if (good === null && !isAnswered(state, state.low)) wanted.push(state.low);
  return wanted;
}

function isAnswered(state: BisectState, seq: number): boolean {
  return state.answers.some((answer) => answer.seq === seq);
}

function probesWithin(state: BisectState, range: Range, running: readonly number[], count: number): number[] {
  const told = state.answers.filter(({ probed, verdict }) => probed && verdict !== 'cannot-tell').length;
  const taken = new Set([...range.untellable, ...running]);
  const chosen: number[] = [];
  for (const { from, to, at } of spread(range.low, range.high, running, count)) {
    const within = [...range.untellable].filter((seq) => seq > from && seq < to).length;
    const ideal = within === 0 ? at : from + Math.round((to - from) * fractionOf(within + 1));
    const left = state.probesMax - told - running.length - chosen.length - 1;
    const seq = coarseNear(state.coarse, ideal, { from, to, taken, left }) ?? freeNear(ideal, range, taken);
    if (seq === null) break;
    taken.add(seq);
    chosen.push(seq);
  }
  return chosen;
}

/** A coarse moment instead of `ideal`, if it halves well enough for the probes that are `left` after it. */
function coarseNear(
  coarse: readonly number[],
  ideal: number,
  { from, to, taken, left }: { from: number; to: number; taken: ReadonlySet<number>; left: number },
): number | null {
  let best: number | null = null;
  for (const seq of coarse) {
    if (seq <= from || seq >= to || taken.has(seq)) continue;
    if (best === null || Math.abs(seq - ideal) < Math.abs(best - ideal)) best = seq;
  }
  if (best === null || Math.abs(best - ideal) > (to - from) / 4) return null;
  return log2Ceiling(Math.max(best - from, to - best)) <= left ? best : null;
}

/** The moment next to `ideal` that nobody has asked about. Null: all have been. */
function freeNear(ideal: number, { low, high }: Range, taken: ReadonlySet<number>): number | null {
  for (let away = 0; away < high - low; away += 1)
    for (const seq of [ideal - away, ideal + away])
      if (seq > low && seq < high && !taken.has(seq)) return seq;
  return null;
}

function note(state: BisectState, answer: BisectAnswer): BisectState {
  const before = state.answers.find(({ seq }) => seq === answer.seq);
  if (before === undefined) return { ...state, answers: [...state.answers, answer] };
  if (before.verdict === answer.verdict || answer.verdict === 'cannot-tell') return state;
  const answers = state.answers.map((each) => (each === before ? answer : each));
  if (before.verdict === 'cannot-tell' && !state.unsteady.includes(answer.seq)) return { ...state, answers };
  return {
    ...state,
    answers: answers.map((each) => (each === answer ? { ...answer, verdict: 'cannot-tell' as const } : each)),
    unsteady: [...new Set([...state.unsteady, answer.seq])],
  };
}

/**
 * log2 of the moments, and two: for coarse moments, or for probing both ends. A search that must probe both ends of an
 * unlucky number of moments takes the one more that rounding up means.
 */
function probesMaxOf(state: BisectState): number {
  const range = rangeOf(state);
  const moments = range.high - range.low;
  return Math.max(log2Ceiling(moments + 1) - 1 + 2, endsWanted(state, range).length + log2Ceiling(moments));
}

function log2Ceiling(count: number): number {
  let bits = 0;
  for (let reach = 1; reach < count; reach *= 2) bits += 1;
  return bits;
}
