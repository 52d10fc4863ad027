// Gaps against a naive history: which of its moments are consistent is known, and no others may be taken for it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Gap, gapAroundSeq, hasTimeWithin, joinOldest, openedGap, openGapOf } from '../index.ts';

type Step = { kind: 'write' | 'open' | 'close'; afterNs: number; behindNs: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    kind: fc.constantFrom('write', 'write', 'open', 'close'),
    afterNs: fc.integer({ min: 1, max: 20 }),
    behindNs: fc.integer({ min: 0, max: 200 }),
  }),
  { maxLength: 60 },
);

interface Built {
  gaps: Gap[];
  /** Of write 0 (the volume's beginning), 1, 2, … */
  timesNs: bigint[];
  endNs: bigint;
}

/** As ingest makes them: each record and write has a time of its own. */
function build(walk: readonly Step[]): Built {
  const gaps: Gap[] = [];
  const timesNs = [100n];
  let nowNs = 100n;
  for (const { kind, afterNs, behindNs } of walk) {
    nowNs += BigInt(afterNs);
    const open = openGapOf(gaps);
    const seq = timesNs.length - 1;
    if (kind === 'write') timesNs.push(nowNs);
    else if (kind === 'open' && open === null)
      gaps.push(
        openedGap(gaps, { seq, timeNs: nowNs }, { writeNs: timesNs[seq]!, behindNs: BigInt(behindNs) }, null),
      );
    else if (kind === 'close' && open !== null) gaps[gaps.length - 1] = { ...open, toSeq: seq, toNs: nowNs };
  }
  return { gaps, timesNs, endNs: nowNs + 10n };
}

function naive(gaps: readonly Gap[], holds: (gap: Gap) => boolean): Gap | null {
  return gaps.find(holds) ?? null;
}

function check({ gaps, timesNs, endNs }: Built): void {
  for (const [i, gap] of gaps.entries()) {
    const before = gaps[i - 1];
    assert.ok(gap.fromNs >= timesNs[gap.fromSeq]!, 'its last point is one, up to its own write at least');
    assert.ok(
      before === undefined || (before.toSeq! <= gap.fromSeq && before.toNs! <= gap.fromNs),
      'one after the other',
    );
    assert.ok(before === undefined || before.number < gap.number);
  }
  const isIn = (seq: number): Gap | null =>
    naive(gaps, ({ fromSeq, toSeq }) => fromSeq < seq && seq < (toSeq ?? Number.POSITIVE_INFINITY));
  for (let seq = 0; seq < timesNs.length; seq += 1)
    assert.equal(gapAroundSeq(gaps, seq), isIn(seq), `write ${seq}`);
  for (let timeNs = 90n; timeNs < endNs; timeNs += 1n) {
    const expected = naive(gaps, ({ fromNs, toNs }) => fromNs < timeNs && (toNs === null || timeNs < toNs));
    const around = naive(gaps, (gap) => hasTimeWithin(gap, timeNs));
    assert.equal(around, expected, `time ${timeNs}`);
    // A time that is not refused names a write that is not.
    const last = timesNs.findLastIndex((writeNs) => writeNs <= timeNs);
    if (expected === null && last >= 0) assert.equal(isIn(last), null, `time ${timeNs} names write ${last}`);
  }
}

test('which gap a write or a time lies in is what a look at all of them says', () =>
  fc.assert(fc.property(steps, (walk) => check(build(walk)))));

test('joined gaps refuse what they refused, and are no more than allowed', () =>
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 5 }), (walk, max) => {
      const built = build(walk);
      const gaps = joinOldest(built.gaps, max);
      assert.ok(gaps.length <= max);
      assert.equal(gaps.at(-1)?.number, built.gaps.at(-1)?.number, 'the next one is numbered as before');
      assert.equal(openGapOf(gaps) === null, openGapOf(built.gaps) === null);
      check({ ...built, gaps });
      for (let seq = 0; seq < built.timesNs.length; seq += 1)
        if (gapAroundSeq(built.gaps, seq) !== null) assert.notEqual(gapAroundSeq(gaps, seq), null);
    }),
  ));

test('a gap begins when the primary was first written to without the appliance, and not before its last write', () => {
  const since = (behindNs: bigint, gaps: Gap[] = []): bigint =>
    openedGap(gaps, { seq: 7, timeNs: 1000n }, { writeNs: 400n, behindNs }, null).fromNs;
  assert.equal(since(0n), 1000n);
  assert.equal(since(300n), 700n);
  assert.equal(since(900n), 400n);
  const before = { number: 3, fromSeq: 1, fromNs: 10n, toSeq: 7, toNs: 650n, reason: null };
  assert.equal(since(900n, [before]), 650n, 'and not within the one before');
});
