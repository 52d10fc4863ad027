// Retention and the policy's fields.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  defaultPolicy,
  kept,
  keptSnapshots,
  nextRunNs,
  parsePolicy,
  type SnapshotCandidate,
  tapeKeep,
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

function at(snapshot: number, time: string, held = false): SnapshotCandidate {
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

test('tapes are kept by numbers of their own, and each with its reason', () => {
  const all = [
    at(1, '2024-05-01T03:00:00Z'),
    at(2, '2026-10-31T03:00:00Z'),
    at(3, '2026-11-20T03:00:00Z'),
    at(4, '2026-11-21T03:00:00Z'),
    at(5, '2026-11-21T03:00:00Z'), // of the same moment, and written later
    at(6, '2026-11-22T03:00:00Z'),
    at(7, '2026-11-23T03:00:00Z'),
  ].map(({ snapshot, ...rest }) => ({ id: `t${snapshot}`, ...rest }));
  const policy = { ...defaultPolicy, tapeKeepLast: 1, tapeKeepDaily: 3, tapeKeepWeekly: 2 };
  assert.deepEqual(
    [...kept(all, tapeKeep(policy))],
    [
      ['t7', 'last'],
      ['t6', 'daily'],
      ['t5', 'daily'],
      ['t2', 'monthly'],
      ['t1', 'monthly'],
    ],
  );
  assert.deepEqual(
    [...kept(all, tapeKeep({ ...policy, tapeKeepMonthly: 0 }))].at(-1),
    ['t1', 'yearly'],
    'of several reasons the first is told',
  );
});

test('what is kept stays kept when the rest has gone', () => {
  const candidates = fc.array(fc.nat(30_000), { maxLength: 60 });
  const keep = fc.record({
    ...{ last: fc.nat(5), hourly: fc.nat(5), daily: fc.nat(5) },
    ...{ weekly: fc.nat(5), monthly: fc.nat(5), yearly: fc.nat(5) },
  });
  const property = fc.property(candidates, keep, (hours, numbers) => {
    const all = hours.map((hour, id) => ({ id, timeNs: BigInt(hour) * 3_600_000_000_000n, held: false }));
    const first = kept(all, numbers);
    const rest = all.filter(({ id }) => first.has(id));
    assert.deepEqual(kept(rest, numbers), first);
  });
  fc.assert(property, { numRuns: 2000 });
});

test('times of day are told in UTC, and one that never comes is none', () => {
  const ns = (time: string) => BigInt(Date.parse(time)) * 1_000_000n;
  assert.equal(nextRunNs('0 3 * * *', ns('2026-11-27T02:59:59.999Z')), ns('2026-11-27T03:00:00Z'));
  assert.equal(nextRunNs('0 3 * * *', ns('2026-11-27T03:00:00Z')), ns('2026-11-28T03:00:00Z'));
  assert.equal(nextRunNs('0 3 29 2 *', ns('2026-11-27T03:00:00Z')), ns('2028-02-29T03:00:00Z'));
  assert.equal(nextRunNs('0 0 30 2 *', ns('2026-11-27T03:00:00Z')), null);
});

const RECIPIENT = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p';

test('what an older catalogue lacks takes its default', () => {
  const { keepDaily, keepMarks } = defaultPolicy;
  const parsed = parsePolicy(JSON.parse(JSON.stringify({ keepDaily, keepMarks })));
  assert.deepEqual(parsed, defaultPolicy);
  assert.equal(parsed.tapeAt, null, 'no tape is written unless somebody wants it');
});

test('fields of tapes are taken in the forms they have', () => {
  const given = {
    tapeAt: '0 3 * * 0',
    tapeDifferencesPerImage: 0,
    tapeZstdLevel: 19,
    tapeRecipients: [RECIPIENT, `age1pq1${'q'.repeat(1900)}`],
    tapeLibrary: 'tape:///dev/nst0?changer=/dev/sg3',
    tapeKeepLast: 0,
  };
  assert.deepEqual(parsePolicy(given), { ...defaultPolicy, ...given });
  for (const tapeLibrary of ['file:///srv/tapes', 's3://bucket/prefix?region=eu-1', null])
    assert.equal(parsePolicy({ tapeLibrary }).tapeLibrary, tapeLibrary);
  assert.equal(parsePolicy({ tapeZstdLevel: null }).tapeZstdLevel, null);
});

test('no error tells a secret', () => {
  for (const [field, value] of [
    ['tapeRecipients', ['AGE-SECRET-KEY-1QQQQQQQQ']],
    ['tapeRecipients', 'AGE-SECRET-KEY-1QQQQQQQQ'],
    ['tapeLibrary', 's3://name:hunter2@bucket/prefix'],
  ] as const)
    assert.throws(
      () => parsePolicy({ [field]: value }),
      (error: Error) => error.message.includes(field) && !/QQQQ|hunter2/.test(error.message),
    );
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
    ['tapeAt', 'at night'],
    ['tapeAt', 3],
    ['tapeDifferencesPerImage', 1001],
    ['tapeDifferencesPerImage', -1],
    ['tapeZstdLevel', 0],
    ['tapeZstdLevel', 20],
    ['tapeZstdLevel', '3'],
    ['tapeRecipients', RECIPIENT],
    ['tapeRecipients', ['age1']],
    ['tapeRecipients', [RECIPIENT.toUpperCase()]],
    ['tapeRecipients', [RECIPIENT, RECIPIENT]],
    ['tapeRecipients', Array(17).fill(RECIPIENT)],
    ['tapeLibrary', '/srv/tapes'],
    ['tapeLibrary', 'file://srv/tapes'],
    ['tapeLibrary', 'http://bucket'],
    ['tapeLibrary', 's3://'],
    ['tapeLibrary', 7],
    ['tapeHoldBaseSeconds', -1],
    ['tapeKeepLast', null],
  ] as const) {
    assert.throws(() => parsePolicy({ [field]: value }), new RegExp(`policy\\.${field}`));
  }
});
