// How points are written and shown.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePoint, printDistance, printTime } from '../index.ts';

const NOW = BigInt(Date.parse('2026-11-22T10:00:00Z')) * 1_000_000n;

test('every way to write a point', () => {
  assert.deepEqual(parsePoint('latest', NOW), { kind: 'latest' });
  assert.deepEqual(parsePoint('seq:1234', NOW), { kind: 'seq', seq: 1234 });
  assert.deepEqual(parsePoint('snap:17', NOW), { kind: 'snapshot', snapshot: 17 });
  assert.deepEqual(parsePoint('mark:before-upgrade', NOW), { kind: 'mark', name: 'before-upgrade' });
  assert.deepEqual(parsePoint('-90s', NOW), { kind: 'time', timeNs: NOW - 90_000_000_000n });
  assert.deepEqual(parsePoint('-3d', NOW), { kind: 'time', timeNs: NOW - 259_200_000_000_000n });
  assert.deepEqual(parsePoint('2026-11-22T10:00:00.000000001Z', NOW), { kind: 'time', timeNs: NOW + 1n });
  assert.deepEqual(parsePoint('2026-11-22T11:00:00+01:00', NOW), { kind: 'time', timeNs: NOW });
});

test('what is no point is refused with how to write one', () => {
  for (const text of [
    '',
    'seq:',
    'seq:-1',
    'seq:99999999999999999',
    'snap:x',
    'mark:',
    '-5',
    '5m',
    '-5y',
    '2026-11-22',
    '2026-11-22T10:00:00',
    '2026-02-31T10:00:00Z',
    '../x',
  ]) {
    assert.throws(
      () => parsePoint(text, NOW),
      (error: Error & { code?: string; hint?: string }) =>
        error.code === 'bad-request' && /seq:1234/.test(error.hint ?? ''),
      text,
    );
  }
});

test('times carry their zone and no empty digits, distances their side', () => {
  assert.equal(printTime(NOW), '2026-11-22T10:00:00Z');
  assert.equal(printTime(NOW + 500_000_000n), '2026-11-22T10:00:00.500Z');
  assert.equal(printTime(NOW + 1n), '2026-11-22T10:00:00.000000001Z');
  assert.equal(printDistance(0), 'exactly');
  assert.equal(printDistance(-1200), '1.2 s before');
  assert.equal(printDistance(-3 * 86_400_000), '3 d 0 h before');
  assert.equal(printDistance(65_000), '1 min 5 s after');
});
