// When a tape is due, and what it is.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Archive } from '../core/archive.ts';
import { firstRunNs, isDue, kindOf } from '../core/schedule.ts';
import { archive, histories, naiveChain } from './archives.ts';

const NIGHTLY = '0 3 * * *';
const ns = (time: string): bigint => BigInt(Date.parse(time)) * 1_000_000n;

test('a tape is due from the time on, once', () => {
  const since = ns('2026-11-20T10:00:00Z');
  assert.equal(isDue(NIGHTLY, null, since, ns('2026-11-21T02:59:59Z')), false);
  assert.equal(isDue(NIGHTLY, null, since, ns('2026-11-21T03:00:00Z')), true);
  const made = ns('2026-11-21T03:00:00.2Z');
  assert.equal(isDue(NIGHTLY, made, since, ns('2026-11-21T03:00:01Z')), false);
  assert.equal(isDue(NIGHTLY, made, since, ns('2026-11-22T03:00:00Z')), true);
});

test('a schedule that begins does not count what came before it', () => {
  const made = ns('2026-11-20T03:00:00Z');
  const changed = ns('2026-11-20T10:00:00Z');
  assert.equal(isDue('0 4 * * *', made, changed, ns('2026-11-20T10:00:01Z')), false);
  assert.equal(firstRunNs('0 4 * * *', made, changed), ns('2026-11-21T04:00:00Z'));
});

test('of a week that was missed one tape is made up for, and then the schedule goes on', () => {
  const since = ns('2026-11-01T00:00:00Z');
  const back = ns('2026-11-20T10:00:00Z');
  assert.equal(isDue(NIGHTLY, ns('2026-11-13T03:00:01Z'), since, back), true);
  assert.equal(firstRunNs(NIGHTLY, ns('2026-11-13T03:00:01Z'), since), ns('2026-11-14T03:00:00Z'));
  assert.equal(isDue(NIGHTLY, back, since, ns('2026-11-21T02:00:00Z')), false);
  assert.equal(isDue(NIGHTLY, back, since, ns('2026-11-21T03:00:00Z')), true);
});

test('however often somebody looks, each span between two looks makes one tape at most, and none is left out', () => {
  const looks = fc.array(fc.integer({ min: 1, max: 60 * 60 * 24 * 3 }), { maxLength: 50 });
  const property = fc.property(looks, (seconds) => {
    const since = ns('2026-02-26T12:34:56Z');
    let now = since;
    let last: bigint | null = null;
    for (const span of seconds) {
      const before = now;
      now += BigInt(span) * 1_000_000_000n;
      // By hand: whether it was 3 o'clock in between.
      const days = (at: bigint): bigint => (at - 3n * 3_600_000_000_000n) / 86_400_000_000_000n;
      const due = isDue(NIGHTLY, last, since, now);
      assert.equal(due, days(now) > days(before));
      if (due) last = now;
    }
  });
  fc.assert(property, { numRuns: 500 });
});

test('a time that never comes is never due', () => {
  assert.equal(firstRunNs('0 0 30 2 *', null, 0n), null);
  assert.equal(isDue('0 0 30 2 *', null, 0n, ns('2026-11-20T10:00:00Z')), false);
});

const LIBRARY = 'file:///tapes';
const IMAGE = archive('i', { seq: 10 });
const FIRST = archive('d1', { seq: 20, chain: ['i'] });
const SECOND = archive('d2', { seq: 30, chain: ['d1', 'i'] });
const NEWEST_FIRST = [SECOND, FIRST, IMAGE];
const place = (...seqs: number[]) => ({ seqsOnDisk: new Set(seqs), library: LIBRARY });
const wanting = (tapeDifferencesPerImage: number) => ({ tapeDifferencesPerImage });

function whyImage(archives: readonly Archive[], differences: number, ...seqs: number[]): string {
  const next = kindOf(archives, wanting(differences), place(...seqs));
  assert.ok(next.kind === 'image');
  return next.why;
}

test('the first is an image, then come differences, each to the one before, then an image again', () => {
  assert.match(whyImage([], 3, 10), /no tape of the schedule/);
  const next = (archives: readonly Archive[], seq: number) => kindOf(archives, wanting(3), place(seq));
  assert.deepEqual(next([IMAGE], 10), { kind: 'difference', parent: IMAGE });
  assert.deepEqual(next([FIRST, IMAGE], 20), { kind: 'difference', parent: FIRST });
  assert.deepEqual(next(NEWEST_FIRST, 30), { kind: 'difference', parent: SECOND });
  const third = archive('d3', { seq: 40, chain: ['d2', 'd1', 'i'] });
  assert.match(whyImage([third, ...NEWEST_FIRST], 3, 40), /3 differences have followed/);
  assert.match(whyImage(NEWEST_FIRST, 0, 30), /images only/);
});

test('no difference to what somebody asked for, to what is lost or lacks something, or to a point that has gone', () => {
  const asked = archive('asked', { seq: 40, cause: 'requested' });
  const to = (archives: readonly Archive[], ...seqs: number[]) =>
    kindOf(archives, wanting(6), place(...seqs));
  assert.deepEqual(to([asked, ...NEWEST_FIRST], 30, 40), { kind: 'difference', parent: SECOND });
  const lost = [{ ...SECOND, lost: true }, FIRST, IMAGE];
  assert.deepEqual(to(lost, 20, 30), { kind: 'difference', parent: FIRST });
  assert.match(whyImage([SECOND, { ...FIRST, lost: true }], 6, 20, 30), /no tape of the schedule/);
  assert.match(whyImage(NEWEST_FIRST, 6, 10, 20), /the point of db-d2 is not on disk/);
  const elsewhere = { ...SECOND, library: 's3://other/' };
  assert.match(whyImage([elsewhere, FIRST, IMAGE], 6, 30), /in the library s3:/);
});

test('a difference is always to one that can be restored, and the policy bounds its chain', () => {
  const property = fc.property(histories, fc.nat(8), (history, differences) => {
    const known = history.known
      .filter(({ volumeId }) => volumeId === 'v1')
      .toSorted((a, b) => Number(b.createdNs - a.createdNs));
    const all = new Set(known.map(({ seq }) => seq));
    const next = kindOf(known, wanting(differences), { seqsOnDisk: all, library: LIBRARY });
    const last = known.find((each) => each.cause === 'schedule' && naiveChain(history, each) !== null);
    const follows = last !== undefined && naiveChain(history, last)!.length <= differences;
    assert.equal(next.kind, follows ? 'difference' : 'image');
    if (follows) assert.equal(next.parent, last);
  });
  fc.assert(property, { numRuns: 1000 });
});
