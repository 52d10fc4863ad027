// The search for the first bad write against its naive twin: random histories, moments that can't be told, verdicts
// that contradict each other, parallel probes answered in any order, restarts in between.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import {
  type BisectQuestion,
  type BisectState,
  nextProbes,
  noteVerdict,
  notMonotone,
  probesMade,
  startBisect,
} from '../core/bisect.ts';
import type { Verdict } from '../core/verdict.ts';
import { bisectLimits } from '../limits.ts';
import { NaiveBisect } from './naive-bisect.ts';

const SEED = 20_261_127;

/** A search by the book, one probe at a time. */
function search(
  question: BisectQuestion,
  verdictOf: (seq: number) => Verdict,
): { state: BisectState; probed: number[]; end: NonNullable<ReturnType<typeof nextProbes>['end']> } {
  let state = startBisect(question);
  const probed: number[] = [];
  for (;;) {
    const { start, end } = nextProbes(state, [], 1);
    if (end !== null) return { state, probed, end };
    assert.equal(start.length, 1);
    probed.push(start[0]!);
    state = noteVerdict(state, start[0]!, verdictOf(start[0]!));
  }
}

const known = { goodKnown: true, badKnown: true };

test('each single write of each small history is found within log2 and two, wherever the snapshots are', () => {
  const random = new SeededRandom(SEED);
  for (let moments = 1; moments <= 200; moments += 1)
    for (let firstBad = 101; firstBad <= 100 + moments; firstBad += 1) {
      const coarse = Array.from({ length: random.below(30) }, () => 100 + random.below(moments + 1));
      const { end, probed } = search({ good: 100, bad: 100 + moments, ...known, coarse }, (seq) =>
        seq >= firstBad ? 'bad' : 'good',
      );
      assert.deepEqual(end, { kind: 'found', lastGood: firstBad - 1, firstBad });
      assert.ok(probed.length <= Math.log2(moments) + 2, `${probed.length} probes of ${moments} moments`);
    }
});

test('in a history of a quadrillion writes with a thousand snapshots at one end the bound holds', () => {
  const random = new SeededRandom(SEED);
  for (let round = 0; round < 2000; round += 1) {
    const moments = 2 + random.below(2 ** 30) * 2 ** random.below(20);
    const firstBad = 1 + Math.floor((random.below(2 ** 30) / 2 ** 30) * moments);
    const coarse = Array.from({ length: 1000 }, (_, i) =>
      round % 2 === 0 ? i + 1 : Math.floor((moments * (i + 1)) / 1001),
    );
    const { end, probed } = search({ good: 0, bad: moments, ...known, coarse }, (seq) =>
      seq >= firstBad ? 'bad' : 'good',
    );
    assert.deepEqual(end, { kind: 'found', lastGood: firstBad - 1, firstBad });
    assert.ok(probed.length <= Math.log2(moments) + 2, `${probed.length} probes of ${moments} moments`);
  }
});

test('snapshots are probed first where they halve the range', () => {
  const coarse = Array.from({ length: 15 }, (_, i) => (i + 1) * 1000 + 7);
  const { probed, end } = search({ good: 0, bad: 16_000, ...known, coarse }, (seq) =>
    seq >= 5123 ? 'bad' : 'good',
  );
  assert.deepEqual(end, { kind: 'found', lastGood: 5122, firstBad: 5123 });
  const fine = probed.findIndex((seq) => !coarse.includes(seq));
  assert.ok(fine >= 3, `${probed} begins with snapshots`);
  assert.ok(probed.length <= Math.log2(16_000) + 2);
});

test('ends that are only assumed are probed, and told when they are not what was assumed', () => {
  const question = { good: 10, bad: 20, goodKnown: false, badKnown: false };
  const nothingBad = search(question, () => 'good');
  assert.deepEqual([nothingBad.end, nothingBad.probed], [{ kind: 'nothing-bad', at: 20 }, [20]]);
  const nothingGood = search(question, () => 'bad');
  assert.deepEqual([nothingGood.end, nothingGood.probed], [{ kind: 'nothing-good', at: 10 }, [20, 10]]);
  const found = search(question, (seq) => (seq >= 14 ? 'bad' : 'good'));
  assert.deepEqual(found.end, { kind: 'found', lastGood: 13, firstBad: 14 });
  assert.ok(found.probed.length <= found.state.probesMax);
  // A disk that was not formatted yet: nothing to go back to but what was found later.
  const young = search(question, (seq) => (seq < 12 ? 'cannot-tell' : seq >= 17 ? 'bad' : 'good'));
  assert.deepEqual(young.end, { kind: 'found', lastGood: 16, firstBad: 17 });
});

test('what is known from before is not probed again', () => {
  const verdicts = [
    { seq: 500, verdict: 'good' as const },
    { seq: 510, verdict: 'bad' as const },
    { seq: 505, verdict: 'cannot-tell' as const },
  ];
  const { probed, end } = search({ good: 0, bad: 1000, ...known, known: verdicts }, (seq) =>
    seq >= 506 ? 'bad' : 'good',
  );
  assert.deepEqual(end, { kind: 'found', lastGood: 505, firstBad: 506 });
  assert.ok(probed.every((seq) => seq > 500 && seq < 510));
});

test('moments that can not be told leave the range that holds the write', () => {
  const some = search({ good: 0, bad: 1000, ...known }, (seq) =>
    seq >= 400 && seq < 420 ? 'cannot-tell' : seq >= 410 ? 'bad' : 'good',
  );
  assert.deepEqual(some.end, { kind: 'range', lastGood: 399, firstBad: 420, cannotTell: 20, complete: true });
  const most = search({ good: 0, bad: 1_000_000, ...known }, (seq) =>
    seq > 10 && seq < 999_990 ? 'cannot-tell' : seq >= 999_990 ? 'bad' : 'good',
  );
  assert.equal(most.end.kind, 'range');
  assert.ok(most.probed.length <= bisectLimits.cannotTellMax + 20);
});

test('several probes at once take fewer rounds', () => {
  const roundsWith = (jobs: number): number => {
    let rounds = 0;
    let state = startBisect({ good: 0, bad: 1_000_000, ...known });
    for (;;) {
      const { start, end } = nextProbes(state, [], jobs);
      if (end !== null) return rounds;
      rounds += 1;
      for (const seq of start) state = noteVerdict(state, seq, seq >= 654_321 ? 'bad' : 'good');
    }
  };
  assert.ok(roundsWith(1) <= 20);
  assert.ok(roundsWith(2) <= 13);
  assert.ok(roundsWith(7) <= 8);
});

test('a moment told good once and bad once is untellable, and said so', () => {
  let state = startBisect({ good: 0, bad: 10, ...known });
  state = noteVerdict(noteVerdict(noteVerdict(state, 5, 'good'), 5, 'bad'), 5, 'good');
  assert.deepEqual(state.unsteady, [5]);
  assert.notDeepEqual(nextProbes(state, [], 1).start, [5]);
});

test('a question that can not be asked is refused', () => {
  assert.throws(() => startBisect({ good: 5, bad: 5, ...known }), /good point \(write 5\) is not before/);
  assert.throws(() => startBisect({ good: -1, bad: 5, ...known }), /the good point is write -1/);
});

interface World {
  question: BisectQuestion;
  truth: Verdict[];
  jobs: number;
  steady: boolean;
}

function makeWorld(random: SeededRandom): World {
  const good = random.below(5);
  const bad = good + 1 + random.below(random.pick([3, 20, 150]));
  const firstBad = good + random.below(bad - good + 3);
  const skipShare = random.pick([0, 0, 0.1, 0.5, 0.95]);
  const wild = random.chance(0.2);
  const truth = Array.from({ length: bad + 1 }, (_, seq): Verdict => {
    if (random.chance(skipShare)) return 'cannot-tell';
    return (wild ? random.chance(0.5) : seq >= firstBad) ? 'bad' : 'good';
  });
  const pick = (): number => good + random.below(bad - good + 1);
  const earlier = Array.from({ length: random.below(3) }, pick);
  return {
    truth,
    jobs: 1 + random.below(5),
    steady: random.chance(0.9),
    question: {
      good,
      bad,
      goodKnown: truth[good] === 'good' && random.chance(0.7),
      badKnown: truth[bad] === 'bad' && random.chance(0.7),
      coarse: Array.from({ length: random.below(10) }, pick),
      known: earlier.map((seq) => ({ seq, verdict: truth[seq]! })),
    },
  };
}

/** Plays one world to its end; the number of steps. */
function play(random: SeededRandom): number {
  const { question, truth, jobs, steady } = makeWorld(random);
  let state = startBisect(question);
  const naive = new NaiveBisect(question);
  let running: number[] = [];
  const asked = new Set<number>();
  for (let steps = 1; ; steps += 1) {
    const { start, stop, end } = nextProbes(state, running, jobs);
    assert.deepEqual(end, naive.end(bisectLimits.cannotTellMax));
    if (end !== null || random.chance(0.1)) assert.deepEqual(notMonotone(state), naive.notMonotone());
    const range = naive.range();
    for (const seq of start) {
      const atEnd = seq === question.good || seq === question.bad;
      assert.ok(atEnd || (seq > range.low && seq < range.high), `${seq} can tell something`);
      assert.ok(!naive.told.has(seq) && !running.includes(seq), `${seq} is new`);
      asked.add(seq);
    }
    for (const seq of stop) assert.ok(running.includes(seq));
    running = running.filter((seq) => !stop.includes(seq)).concat(start);
    assert.equal(new Set(running).size, running.length);
    assert.ok(running.length <= jobs);
    if (end !== null) {
      assert.equal(running.length, 0);
      checkEnd({ state, naive, truth, asked, jobs, steady });
      return steps;
    }
    assert.ok(running.length > 0, 'a search that has not ended goes on');
    if (random.chance(0.05)) {
      // The monitor was killed: its probes are gone, and what it had noted is read again.
      running = [];
      state = JSON.parse(JSON.stringify(state)) as BisectState;
      continue;
    }
    const seq = random.pick(running);
    running = running.filter((each) => each !== seq);
    const verdict = steady || random.chance(0.8) ? truth[seq]! : random.pick(['good', 'bad'] as const);
    state = noteVerdict(state, seq, verdict);
    naive.tell(seq, verdict);
  }
}

function checkEnd(at: {
  state: BisectState;
  naive: NaiveBisect;
  truth: Verdict[];
  asked: ReadonlySet<number>;
  jobs: number;
  steady: boolean;
}): void {
  const { state, truth, asked, jobs, steady } = at;
  const { end } = nextProbes(state, [], jobs);
  assert.ok(end !== null && probesMade(state) <= asked.size + state.unsteady.length);
  if (!steady) return;
  const told = truth.every((verdict) => verdict !== 'cannot-tell');
  if (jobs === 1 && told)
    assert.ok(asked.size <= state.probesMax, `${asked.size} probes, at most ${state.probesMax}`);
  if (end.kind === 'found') {
    assert.equal(truth[end.lastGood], 'good');
    assert.equal(truth[end.firstBad], 'bad');
  } else if (end.kind === 'range') {
    assert.ok(end.lastGood === null || truth[end.lastGood] === 'good');
    assert.ok(end.firstBad === null || truth[end.firstBad] === 'bad');
    if (!end.complete) return;
    const between = truth.slice((end.lastGood ?? state.low) + 1, end.firstBad ?? state.high);
    assert.ok(between.every((verdict) => verdict === 'cannot-tell'));
  } else assert.equal(truth[end.at], end.kind === 'nothing-bad' ? 'good' : 'bad');
}

test('two million random steps agree with the naive twin', () => {
  let steps = 0;
  for (let seed = SEED; steps < 2_000_000; seed += 1)
    try {
      steps += play(new SeededRandom(seed));
    } catch (error) {
      throw new Error(`MIM_TEST_SEED=${seed}: ${(error as Error).message}`, { cause: error });
    }
});
