// Earlier verdicts are reused exactly when nothing that the check read has changed; ranges against a map of bytes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ByteRange, overlaps, ReadSet } from '../core/read-set.ts';
import type { Verdict } from '../core/verdict.ts';
import { type EarlierVerdict, holdsFor, nearestVerdicts } from '../core/reuse.ts';

const range = fc.record({
  startBytes: fc.integer({ min: 0, max: 60 }),
  lengthBytes: fc.integer({ min: 0, max: 9 }),
});

function bytesOf(ranges: readonly ByteRange[]): Set<number> {
  const bytes = new Set<number>();
  for (const { startBytes, lengthBytes } of ranges)
    for (let at = 0; at < lengthBytes; at += 1) bytes.add(startBytes + at);
  return bytes;
}

function setOf(ranges: readonly ByteRange[], rangesMax: number): ReadSet {
  const set = new ReadSet(rangesMax);
  for (const { startBytes, lengthBytes } of ranges) set.add(startBytes, lengthBytes);
  return set;
}

test('a read set holds each byte that was read, and with room for all its ranges no other', () => {
  fc.assert(
    fc.property(fc.array(range, { maxLength: 40 }), fc.integer({ min: 1, max: 50 }), (read, rangesMax) => {
      const bytes = bytesOf(read);
      assert.deepEqual(bytesOf(setOf(read, 1000).ranges), new Set([...bytes].sort((a, b) => a - b)));
      const few = setOf(read, rangesMax).ranges;
      assert.ok(few.length <= rangesMax);
      assert.ok(bytes.isSubsetOf(bytesOf(few)));
      for (const [i, { startBytes }] of few.entries())
        assert.ok(i === 0 || startBytes > few[i - 1]!.startBytes + few[i - 1]!.lengthBytes);
    }),
    { numRuns: 2000 },
  );
});

test('two lists of ranges overlap when a byte is in both', () => {
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), fc.array(range, { maxLength: 12 }), (a, b) => {
      const both = overlaps(setOf(a, 1000).ranges, setOf(b, 1000).ranges);
      assert.equal(both, !bytesOf(a).isDisjointFrom(bytesOf(b)));
    }),
    { numRuns: 2000 },
  );
});

const earlier: EarlierVerdict = {
  seq: 100,
  verdict: 'good',
  checkKey: 'fsck 1',
  read: [
    { startBytes: 0, lengthBytes: 4096 },
    { startBytes: 65_536, lengthBytes: 4096 },
  ],
};
const probe = { seq: 200, checkKey: 'fsck 1', steady: true };
const elsewhere = [{ startBytes: 4096, lengthBytes: 61_440 }];
const within = [{ startBytes: 69_631, lengthBytes: 1 }];

test('a verdict holds where nothing that was read has changed', () => {
  assert.equal(holdsFor(earlier, probe, elsewhere), true);
  assert.equal(holdsFor(earlier, probe, within), false);
  assert.equal(holdsFor(earlier, probe, []), true);
});

test('it does not hold for another check, an unsteady one, or when it was none', () => {
  assert.equal(holdsFor(earlier, { ...probe, checkKey: 'fsck 2' }, []), false);
  assert.equal(holdsFor(earlier, { ...probe, steady: false }, []), false);
  assert.equal(holdsFor({ ...earlier, verdict: 'cannot-tell' }, probe, []), false);
});

test('when nobody knows what was read, only identical moments will do', () => {
  assert.equal(holdsFor({ ...earlier, read: null }, probe, elsewhere), false);
  assert.equal(holdsFor({ ...earlier, read: null }, probe, []), true);
});

test('the nearest verdicts are asked first, of each side and kind one', () => {
  const at = (seq: number, verdict: Verdict = 'good') => ({ seq, verdict });
  const found = (...all: ReturnType<typeof at>[]) => nearestVerdicts(all, 200).map(({ seq }) => seq);
  assert.deepEqual(found(at(10), at(150), at(190, 'cannot-tell'), at(210), at(400)), [210, 150]);
  assert.deepEqual(found(at(10), at(20), at(150, 'bad'), at(160, 'bad')), [160, 20]);
  assert.deepEqual(found(at(200, 'bad'), at(201), at(300, 'bad')), [200, 201, 300]);
  assert.deepEqual(found(), []);
});
