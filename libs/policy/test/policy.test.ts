// Retention and the policy's fields.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  defaultPolicy,
  keptSnapshots,
  parsePolicy,
  type RetentionCandidate,
  type VolumePolicy,
} from '../index.ts';

const NONE: VolumePolicy = {
  ...defaultPolicy,
  keepLast: 0,
  keepHourly: 0,
  keepDaily: 0,
  keepWeekly: 0,
  keepMonthly: 0,
  keepYearly: 0,
};

function at(snapshot: number, time: string, held = false): RetentionCandidate {
  return { snapshot, timeNs: BigInt(Date.parse(time)) * 1_000_000n, held };
}

test('the last of each day is kept, for so many days', () => {
  const all = [
    at(1, '2026-11-20T08:00:00Z'),
    at(2, '2026-11-20T23:59:59Z'),
    at(3, '2026-11-21T00:00:00Z'),
    at(4, '2026-11-22T12:00:00Z'),
    at(5, '2026-11-22T13:00:00Z'),
  ];
  assert.deepEqual([...keptSnapshots(all, { ...NONE, keepDaily: 2 })].sort(), [3, 5]);
  assert.deepEqual([...keptSnapshots(all, { ...NONE, keepDaily: 9 })].sort(), [2, 3, 5]);
});

test('weeks begin on Monday, years end at midnight UTC', () => {
  const sundayAndMonday = [at(1, '2026-11-22T23:00:00Z'), at(2, '2026-11-23T01:00:00Z')];
  assert.equal(keptSnapshots(sundayAndMonday, { ...NONE, keepWeekly: 5 }).size, 2);
  const newYear = [at(1, '2025-12-31T23:59:59Z'), at(2, '2026-01-01T00:00:00Z')];
  assert.equal(keptSnapshots(newYear, { ...NONE, keepYearly: 5 }).size, 2);
});

test('what is held stays, and each rule keeps at most its number', () => {
  const candidates = fc.array(fc.record({ hours: fc.nat(30_000), held: fc.boolean() }), { maxLength: 60 });
  const property = fc.property(
    candidates,
    fc.nat(10),
    fc.nat(10),
    fc.nat(10),
    (items, keepLast, keepDaily, keepMonthly) => {
      const all = items.map(({ hours, held }, i) => ({
        snapshot: i,
        timeNs: BigInt(hours) * 3_600_000_000_000n,
        held,
      }));
      const kept = keptSnapshots(all, { ...NONE, keepLast, keepDaily, keepMonthly });
      for (const candidate of all) if (candidate.held) assert.ok(kept.has(candidate.snapshot));
      const held = all.filter((candidate) => candidate.held).length;
      assert.ok(kept.size <= held + keepLast + keepDaily + keepMonthly);
      const newest = all.toSorted((a, b) => (a.timeNs < b.timeNs ? 1 : -1)).slice(0, keepLast);
      for (const { timeNs } of newest)
        assert.ok(all.some((candidate) => kept.has(candidate.snapshot) && candidate.timeNs === timeNs));
    },
  );
  fc.assert(property, { numRuns: 2000 });
});

test('fields have defaults; unknown ones and wrong values are refused by name', () => {
  assert.deepEqual(parsePolicy(null), defaultPolicy);
  assert.equal(parsePolicy({ keepDaily: 3 }).keepDaily, 3);
  for (const [field, value] of [
    ['keepDaily', -1],
    ['keepDaily', 1.5],
    ['keepDaily', '3'],
    ['syncEverySeconds', 0],
    ['syncAt', 'soon'],
    ['keepMarks', ['all']],
    ['keepEverything', 1],
  ] as const) {
    assert.throws(() => parsePolicy({ [field]: value }), new RegExp(`policy\\.${field}`));
  }
});
