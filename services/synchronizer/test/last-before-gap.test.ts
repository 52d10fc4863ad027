// Which point before a gap a sync keeps, against a naive twin that goes through time as the policy does.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Gap } from '@midmirror/point';
import fc from 'fast-check';
import { isDueBefore, lastBeforeGap } from '../last-before-gap.ts';

const SECOND = 1_000_000_000n;

function gapOf(number: number, fromSeq: number, toSeq: number | null): Gap {
  const at = (seq: number): bigint => BigInt(seq) * SECOND;
  return {
    number,
    fromSeq,
    fromNs: at(fromSeq),
    toSeq,
    toNs: toSeq === null ? null : at(toSeq),
    reason: null,
  };
}

/** Each write a second after the one before. A snapshot is made at the first write that is old enough, outside of gaps. */
function isMissed(gap: Gap, openSeq: number, every: number, lastSeq: number): boolean {
  for (let seq = openSeq; seq <= lastSeq; seq += 1) {
    if (seq - openSeq < every) continue;
    return seq > gap.fromSeq && (gap.toSeq === null || seq <= gap.toSeq);
  }
  return gap.toSeq === null;
}

test('the last point before a gap is kept where the time for a snapshot comes within it, or it has no end', () =>
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 20 }),
      fc.integer({ min: 1, max: 30 }),
      fc.integer({ min: 0, max: 30 }),
      fc.option(fc.integer({ min: 0, max: 40 })),
      (openSeq, every, before, length) => {
        const fromSeq = openSeq + before;
        const gap = gapOf(1, fromSeq, length === null ? null : fromSeq + length);
        // One that is due before the gap is made there, and the gap is looked at again with it.
        fc.pre(before < every);
        const lastSeq = fromSeq + 200;
        assert.equal(
          isDueBefore(gap, BigInt(openSeq) * SECOND, every),
          isMissed(gap, openSeq, every, lastSeq),
        );
      },
    ),
  ));

test('of several the first on the way counts, and none that the MIM is past or at', () => {
  const gaps = [gapOf(1, 10, 100), gapOf(2, 100, 101), gapOf(3, 150, null)];
  const station = (after: number, before: number): number | null =>
    lastBeforeGap(gaps, after, before, 5n * SECOND, 60);
  assert.equal(station(5, 1000), 10);
  assert.equal(station(10, 1000), 100);
  assert.equal(station(5, 10), null);
  assert.equal(station(100, 1000), 150);
  assert.equal(station(150, 1000), null);
  assert.equal(lastBeforeGap(gaps, 5, 120, 90n * SECOND, 60), null, 'no snapshot is due yet');
});
