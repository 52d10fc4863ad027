// Which tapes go: grandfather, father and son by a naive count, and no chain that stays is broken.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultPolicy, type VolumePolicy } from '@midmirror/policy';
import fc from 'fast-check';
import type { Archive } from '../core/archive.ts';
import { retain, type Retention } from '../core/retention.ts';
import { archive, type History, histories, naiveChain } from './archives.ts';

const NONE_IN_USE: ReadonlySet<string> = new Set();
const DAY_MS = 86_400_000;

const policies = fc
  .record({
    ...{ tapeKeepLast: fc.nat(4), tapeKeepDaily: fc.nat(4), tapeKeepWeekly: fc.nat(4) },
    ...{ tapeKeepMonthly: fc.nat(3), tapeKeepYearly: fc.nat(2) },
  })
  .map((numbers): VolumePolicy => ({ ...defaultPolicy, ...numbers }));

const keptIds = ({ kept }: Retention): Set<string> => new Set(kept.map((each) => each.archive));
const dateOf = ({ timeNs }: Archive): Date => new Date(Number(timeNs / 1_000_000n));

/** The Monday of its week, counted back a day at a time. */
function mondayOf(date: Date): string {
  let day = date;
  while (day.getUTCDay() !== 1) day = new Date(day.getTime() - DAY_MS);
  return `${day.getUTCFullYear()}-${day.getUTCMonth()}-${day.getUTCDate()}`;
}

/** Each of so many last days, weeks, … that have a tape: the last tape of it. */
function naiveKept(archives: readonly Archive[], policy: VolumePolicy): Set<string> {
  const newestFirst = archives.toSorted((a, b) => Number(b.createdNs - a.createdNs));
  const found = new Set(newestFirst.slice(0, policy.tapeKeepLast).map(({ id }) => id));
  const spans: [(date: Date) => string, number][] = [
    [(d) => `${d.getUTCFullYear()}-${d.getUTCMonth()}-${d.getUTCDate()}`, policy.tapeKeepDaily],
    [mondayOf, policy.tapeKeepWeekly],
    [(d) => `${d.getUTCFullYear()}-${d.getUTCMonth()}`, policy.tapeKeepMonthly],
    [(d) => `${d.getUTCFullYear()}`, policy.tapeKeepYearly],
  ];
  for (const [spanOf, count] of spans) {
    const names = [...new Set(newestFirst.map((each) => spanOf(dateOf(each))))].slice(0, count);
    for (const name of names) found.add(newestFirst.find((each) => spanOf(dateOf(each)) === name)!.id);
  }
  return found;
}

function ofOneVolume(history: History): History {
  const written = history.written.filter(({ volumeId }) => volumeId === 'v1');
  return { ...history, written, known: history.known.filter((each) => written.includes(each)) };
}

function usableOf(history: History): Archive[] {
  return history.known.filter((each) => naiveChain(history, each) !== null);
}

const ofOne = histories.map(ofOneVolume);

test('what the numbers say of tapes that can be restored stays', () => {
  const property = fc.property(ofOne, policies, (history, policy) => {
    const kept = keptIds(retain(history.known, policy, NONE_IN_USE));
    const usable = usableOf(history).filter(({ cause }) => cause === 'schedule');
    for (const id of naiveKept(usable, policy)) assert.ok(kept.has(id), `${id} stays`);
    if (usable.length > 0) {
      const newest = usable.toSorted((a, b) => Number(b.createdNs - a.createdNs))[0]!;
      assert.ok(kept.has(newest.id), 'the newest stays');
    }
  });
  fc.assert(property, { numRuns: 1000 });
});

test('only what the schedule wrote goes, each exactly once, and nothing that is in use', () => {
  const property = fc.property(ofOne, policies, fc.nat(40), (history, policy, used) => {
    const inUse = new Set([`a${used}`]);
    const done = retain(history.known, policy, inUse);
    const all = [...done.drops, ...keptIds(done)];
    assert.deepEqual(all.sort(), history.known.map(({ id }) => id).sort());
    for (const each of history.known) {
      if (!done.drops.includes(each.id)) continue;
      assert.equal(each.cause, 'schedule');
      assert.ok(!inUse.has(each.id));
    }
  });
  fc.assert(property, { numRuns: 1000 });
});

test('no step breaks a chain that was whole, nor one that may become whole again', () => {
  const property = fc.property(ofOne, policies, (history, policy) => {
    const { drops } = retain(history.known, policy, NONE_IN_USE);
    let known = history.known;
    for (const drop of drops) {
      const before = { ...history, known };
      const rest = known.filter(({ id }) => id !== drop);
      for (const each of rest) {
        assert.ok(!each.chain.includes(drop), `${each.id} needs ${drop}, which goes before it`);
        if (naiveChain(before, each) !== null)
          assert.ok(naiveChain({ ...history, known: rest }, each) !== null);
      }
      known = rest;
    }
  });
  fc.assert(property, { numRuns: 1000 });
});

test('when all that goes has gone, nothing more does', () => {
  const property = fc.property(ofOne, policies, (history, policy) => {
    const first = retain(history.known, policy, NONE_IN_USE);
    const stayed = keptIds(first);
    const rest = history.known.filter(({ id }) => stayed.has(id));
    assert.deepEqual(retain(rest, policy, NONE_IN_USE), { drops: [], kept: first.kept });
  });
  fc.assert(property, { numRuns: 1000 });
});

test('no more stays than has a reason, and what is lost only if it is needed', () => {
  const property = fc.property(ofOne, policies, (history, policy) => {
    const kept = keptIds(retain(history.known, policy, NONE_IN_USE));
    const stayed = history.known.filter(({ id }) => kept.has(id));
    const unneeded = stayed.filter(
      ({ id, cause }) => cause === 'schedule' && !stayed.some(({ chain }) => chain.includes(id)),
    );
    assert.ok(unneeded.every(({ lost }) => !lost));
    const counted = history.known.filter(({ cause, lost }) => cause === 'schedule' && !lost);
    const usable = usableOf(history).filter((each) => counted.includes(each));
    const newest = usable.toSorted((a, b) => Number(b.createdNs - a.createdNs)).slice(0, 1);
    const reasons = new Set([
      ...naiveKept(usable, policy),
      ...naiveKept(counted, policy),
      ...newest.map(({ id }) => id),
    ]);
    for (const { id } of unneeded) assert.ok(reasons.has(id), `${id} has no reason to stay`);
  });
  fc.assert(property, { numRuns: 1000 });
});

const at = (id: string, time: string, given: Partial<Archive> = {}): Archive => {
  const ns = BigInt(Date.parse(time)) * 1_000_000n;
  return archive(id, { timeNs: ns, createdNs: ns, ...given });
};

test('each that stays says why', () => {
  const policy = {
    ...{ ...defaultPolicy, tapeKeepLast: 1, tapeKeepDaily: 2 },
    ...{ tapeKeepWeekly: 0, tapeKeepMonthly: 2, tapeKeepYearly: 0 },
  };
  const archives = [
    at('i1', '2026-10-01T03:00:00Z'),
    at('d1', '2026-10-31T03:00:00Z', { chain: ['i1'] }),
    at('d2', '2026-11-01T03:00:00Z', { chain: ['d1', 'i1'] }),
    at('asked', '2026-11-19T12:00:00Z', { cause: 'requested' }),
    at('found', '2026-11-19T13:00:00Z', { cause: 'imported' }),
    at('i2', '2026-11-20T03:00:00Z'),
    at('read', '2026-11-21T03:00:00Z'),
    at('i3', '2026-11-22T03:00:00Z'),
    at('gone', '2026-11-22T23:00:00Z', { lost: true }),
    at('i4', '2026-11-23T03:00:00Z'),
  ];
  assert.deepEqual(retain(archives, policy, new Set(['read'])), {
    drops: ['d2', 'i2', 'gone'],
    kept: [
      { archive: 'i1', why: 'db-d1 needs it' },
      { archive: 'd1', why: 'the last of its month (tapeKeepMonthly)' },
      { archive: 'asked', why: 'written on request: the policy lets go only what the schedule wrote' },
      { archive: 'found', why: 'imported: the policy lets go only what the schedule wrote' },
      { archive: 'read', why: 'a job or a restore needs it' },
      { archive: 'i3', why: 'the last of its day (tapeKeepDaily)' },
      { archive: 'i4', why: 'the newest (tapeKeepLast)' },
    ],
  });
});

test('a tape whose image is lost gives its place away and stays while it counts; the lost one stays with it', () => {
  const policy = {
    ...{ ...defaultPolicy, tapeKeepLast: 0, tapeKeepDaily: 1 },
    ...{ tapeKeepWeekly: 0, tapeKeepMonthly: 0, tapeKeepYearly: 0 },
  };
  const archives = [
    at('i1', '2026-11-22T01:00:00Z'),
    at('i2', '2026-11-22T02:00:00Z', { lost: true }),
    at('d2', '2026-11-22T03:00:00Z', { chain: ['i2'] }),
  ];
  assert.deepEqual(retain(archives, policy, NONE_IN_USE), {
    drops: [],
    kept: [
      { archive: 'i1', why: 'the last of its day (tapeKeepDaily)' },
      { archive: 'i2', why: 'db-d2 needs it' },
      { archive: 'd2', why: 'the last of its day (tapeKeepDaily), if what it lacks comes back' },
    ],
  });
  // A day later there is a newer one, and nobody waits for it any more.
  const later = [...archives, at('i3', '2026-11-23T01:00:00Z')];
  assert.deepEqual(retain(later, policy, NONE_IN_USE).drops, ['d2', 'i1', 'i2']);
});

test('a policy that keeps nothing keeps the newest that can be restored', () => {
  const none = {
    ...{ ...defaultPolicy, tapeKeepLast: 0, tapeKeepDaily: 0 },
    ...{ tapeKeepWeekly: 0, tapeKeepMonthly: 0, tapeKeepYearly: 0 },
  };
  const archives = [
    at('i1', '2026-11-22T01:00:00Z'),
    at('i2', '2026-11-22T02:00:00Z'),
    at('i3', '2026-11-22T03:00:00Z', { lost: true }),
  ];
  assert.deepEqual(retain(archives, none, NONE_IN_USE), {
    drops: ['i1', 'i3'],
    kept: [{ archive: 'i2', why: 'the newest of the schedule that can be restored' }],
  });
});

test('thousands of long chains are gone through once, be all of them kept', () => {
  const archives: Archive[] = [];
  const reads = { count: 0 };
  for (let i = 0; i < 4000; i += 1) {
    const chain = i % 800 === 0 ? [] : [archives[i - 1]!.id, ...archives[i - 1]!.chain];
    const made = archive(`a${i}`, { seq: i + 1, chain, cause: i % 2 === 0 ? 'requested' : 'schedule' });
    const counted = new Proxy(chain, {
      get: (target, key, receiver) => {
        if (typeof key === 'string' && /^\d+$/.test(key)) reads.count += 1;
        return Reflect.get(target, key, receiver) as unknown;
      },
    });
    archives.push({ ...made, chain: counted });
  }
  const total = archives.reduce((sum, { chain }) => sum + chain.length, 0);
  reads.count = 0;
  const { drops, kept } = retain(archives, { ...defaultPolicy }, new Set());
  assert.equal(drops.length + kept.length, 4000);
  assert.ok(reads.count < 6 * total, `${reads.count} looks at ${total} links`);
});
