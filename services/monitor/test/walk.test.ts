// The walk of FIG. 23 against the flowchart read aloud, on random histories that change on the way, with restarts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Verdict } from '../core/verdict.ts';
import { nextOfWalk, noteWalk, startWalk, type WalkState } from '../core/walk.ts';

function walk(
  state: WalkState,
  mirrors: readonly number[],
  verdictOf: (seq: number) => Verdict,
): { state: WalkState; probed: number[]; end: ReturnType<typeof nextOfWalk> } {
  const probed: number[] = [];
  for (;;) {
    const step = nextOfWalk(state, mirrors);
    if (step.kind !== 'probe') return { state, probed, end: step };
    probed.push(step.seq);
    // A restart between any two probes.
    state = JSON.parse(JSON.stringify(noteWalk(state, step.seq, verdictOf(step.seq)))) as WalkState;
  }
}

/** The flowchart, steps 2302 to 2314, over an array. */
function flowchart(
  verdicts: readonly Verdict[],
  every: number,
): { probed: number[]; condemned: number | null; firstBad: number | null; good: number | null } {
  const probed: number[] = [];
  let good: number | null = null;
  for (let at = 0; at < verdicts.length; at += every) {
    probed.push(at);
    if (verdicts[at] === 'good') good = at;
    if (verdicts[at] !== 'bad') continue;
    let firstBad = at;
    let back = at - 1;
    for (; back >= 0 && back !== good; back -= 1) {
      probed.push(back);
      if (verdicts[back] === 'good') break;
      if (verdicts[back] === 'bad') firstBad = back;
    }
    return { probed, condemned: at, firstBad, good: back >= 0 ? back : null };
  }
  return { probed, condemned: null, firstBad: null, good };
}

const verdict = fc.constantFrom<Verdict>('good', 'good', 'good', 'bad', 'cannot-tell');

test('it goes as the flowchart goes, every mirror or every nth', () => {
  fc.assert(
    fc.property(fc.array(verdict, { maxLength: 40 }), fc.integer({ min: 1, max: 5 }), (verdicts, every) => {
      const mirrors = verdicts.map((_, i) => 10 + i * 7);
      const { probed, end, state } = walk(
        startWalk({ from: 0, every }),
        mirrors,
        (seq) => verdicts[(seq - 10) / 7]!,
      );
      const expected = flowchart(verdicts, every);
      const seq = (at: number | null): number | null => (at === null ? null : mirrors[at]!);
      assert.deepEqual(probed, expected.probed.map(seq));
      assert.equal(state.probes, probed.length);
      if (expected.condemned === null)
        assert.deepEqual(end, { kind: 'all-looked-at', lastGood: seq(expected.good) });
      else
        assert.deepEqual(end, {
          kind: 'condemned',
          condemned: seq(expected.condemned),
          firstBad: seq(expected.firstBad),
          restoreTo: seq(expected.good),
        });
    }),
    { numRuns: 5000 },
  );
});

test('onward it looks at each, and tells what is condemned since the last good one, and before it', () => {
  fc.assert(
    fc.property(fc.array(verdict, { maxLength: 40 }), fc.integer({ min: 1, max: 5 }), (verdicts, every) => {
      const looked = verdicts.map((_, seq) => seq).filter((seq) => seq % every === 0);
      const { probed, end, state } = walk(
        startWalk({ from: 0, every, onward: true }),
        verdicts.map((_, seq) => seq),
        (seq) => verdicts[seq]!,
      );
      assert.deepEqual(probed, looked);
      const bad = looked.filter((seq) => verdicts[seq] === 'bad');
      const good = looked.filter((seq) => verdicts[seq] === 'good');
      const lastGood = good.at(-1) ?? null;
      assert.deepEqual(end, { kind: 'all-looked-at', lastGood });
      assert.equal(state.badCount ?? 0, bad.length);
      assert.equal(state.firstBad, bad.find((seq) => seq > (lastGood ?? -1)) ?? null);
      assert.equal(
        state.pastBad,
        bad.find((seq) => seq < (lastGood ?? -1)),
      );
    }),
    { numRuns: 2000 },
  );
});

test('from and to bound it, also on the way back', () => {
  const mirrors = [1, 2, 3, 4, 5, 6, 7, 8];
  const bounded = walk(startWalk({ from: 3, to: 6, every: 1 }), mirrors, () => 'good');
  assert.deepEqual(bounded.probed, [3, 4, 5, 6]);
  const bad = walk(startWalk({ from: 3, every: 3 }), mirrors, (seq) => (seq <= 3 ? 'cannot-tell' : 'bad'));
  assert.deepEqual(bad.probed, [3, 6, 5, 4, 3]);
  assert.deepEqual(bad.end, { kind: 'condemned', condemned: 6, firstBad: 4, restoreTo: null });
});

test('mirrors that come later carry it on, and those that go are passed over', () => {
  let { state, probed } = walk(startWalk({ from: 0, every: 2 }), [1, 2, 3, 4], () => 'good');
  assert.deepEqual(probed, [1, 3]);
  ({ state, probed } = walk(state, [3, 4, 5, 6, 7], () => 'good'));
  assert.deepEqual(probed, [5, 7]);
  // Retention has taken 7 itself and what came before.
  ({ state, probed } = walk(state, [8, 9, 10], () => 'good'));
  assert.deepEqual(probed, [9]);
  assert.equal(state.lastGood, 9);
});

test('a walk that can not be is refused', () => {
  assert.throws(() => startWalk({ from: 1, every: 0 }), /every 0: expected a whole number from 1 on/);
  assert.throws(() => startWalk({ from: 5, to: 4, every: 1 }), /ends \(write 4\) before it begins/);
});
