// By which moments the writes before a point are gone through: each write once, the same for each asking.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type KeptMoments, type Moment, stepsTo } from '../core/entropy-steps.ts';

const MINUTE = 60_000;
const LIMITS = { windowMs: 60 * MINUTE, fromMs: 0, stepMs: 5 * MINUTE };

/** Writes with their times, never going back. */
const writes = fc.array(fc.nat(4 * MINUTE), { minLength: 1, maxLength: 200 }).map((gaps) => {
  let timeMs = MINUTE;
  return gaps.map((gap) => (timeMs += gap));
});

function keptOf(times: readonly number[], upTo: number, mimSeq: number): KeptMoments {
  const last = new Map<number, number>();
  for (const [i, timeMs] of times.slice(0, upTo).entries())
    last.set(Math.floor(timeMs / MINUTE) * MINUTE, i + 1);
  return {
    snapshots: [mimSeq >> 1].map((seq) => ({ seq, timeMs: times[seq - 1] ?? 0 })),
    minutes: [...last].map(([minuteMs, lastSeq]) => ({ minuteMs, lastSeq })),
    everyFrom: { seq: mimSeq, timeMs: times[mimSeq - 1] ?? 0 },
  };
}

test('steps go from before the window to the point, forward, by moments that are kept, one in each time', () => {
  const property = fc.property(writes, fc.nat(), fc.nat(), (times, at, mim) => {
    const point: Moment = { seq: (at % times.length) + 1, timeMs: times[at % times.length]! };
    const mimSeq = mim % (times.length + 1);
    const steps = stepsTo(point, keptOf(times, times.length, mimSeq), LIMITS);
    const snapshot = mimSeq >> 1;
    if (point.seq <= snapshot) return assert.equal(steps, null);
    const all = steps!;
    assert.deepEqual(all.at(-1), point);
    for (const [i, { seq, timeMs }] of all.entries()) {
      assert.ok(seq === point.seq || seq === snapshot || (seq >= mimSeq && seq < point.seq), 'it is kept');
      if (i === 0) continue;
      assert.ok(seq > all[i - 1]!.seq && timeMs >= all[i - 1]!.timeMs);
    }
    // Nothing kept is nearer to the beginning of the window.
    const beginMs = point.timeMs - LIMITS.windowMs;
    const [first] = all;
    if (first!.timeMs <= beginMs && mimSeq < point.seq && (times[mimSeq - 1] ?? 0) <= beginMs)
      assert.ok(first!.seq >= mimSeq);
    const slots = all.slice(1, -1).map(({ timeMs }) => Math.floor(timeMs / LIMITS.stepMs));
    assert.equal(new Set(slots).size, slots.length);
    // What came after the point changes nothing.
    assert.deepEqual(stepsTo(point, keptOf(times, point.seq, mimSeq), LIMITS), steps);
  });
  fc.assert(property, { numRuns: 2000 });
});

test('nothing before the time that is named is looked at', () => {
  const times = Array.from({ length: 60 }, (_, i) => (i + 1) * MINUTE);
  const kept = keptOf(times, 60, 0);
  const point = { seq: 60, timeMs: times[59]! };
  const steps = stepsTo(point, kept, { ...LIMITS, fromMs: 30 * MINUTE })!;
  assert.ok(steps.every(({ timeMs }) => timeMs >= 30 * MINUTE));
  assert.equal(stepsTo(point, kept, { ...LIMITS, fromMs: 100 * MINUTE }), null);
});
