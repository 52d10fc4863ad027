import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bucketsOf, quantile, shareWithin, since } from './buckets.ts';

const BOUNDS = [0.0025, 0.005, 0.05, 0.1, 0.25, 1, Number.POSITIVE_INFINITY];
const LABELS = { consumer: 'mapping-index.journal', since: 'durable' };

function text(seconds: readonly number[]): string {
  const lines = BOUNDS.map((bound) => {
    const le = bound === Number.POSITIVE_INFINITY ? '+Inf' : String(bound);
    const upTo = seconds.filter((each) => each <= bound).length;
    return `lag_seconds_bucket{le="${le}",consumer="mapping-index.journal",since="durable"} ${upTo}`;
  });
  const other = lines.map((line) => line.replace('durable', 'stored').replace(/ \d+$/, ' 7'));
  return [...other, ...lines, `lag_seconds_count{consumer="mapping-index.journal"} 3`].join('\n');
}

test('quantiles lie in the bucket that has them; shares at a bound are exact; what was before does not count', () => {
  const before = [0.3, 0.3, 7, 7, 7];
  const values = [
    ...Array<number>(980).fill(0.003),
    ...Array<number>(15).fill(0.08),
    ...Array<number>(5).fill(0.2),
  ];
  const run = since(
    bucketsOf(text(before), 'lag_seconds', LABELS),
    bucketsOf(text([...before, ...values]), 'lag_seconds', LABELS),
  );
  assert.equal(run.count, 1000);
  assert.ok(quantile(run, 0.5) > 0.0025 && quantile(run, 0.5) <= 0.005);
  assert.ok(quantile(run, 0.99) > 0.05 && quantile(run, 0.99) <= 0.1);
  assert.ok(quantile(run, 0.999) > 0.1 && quantile(run, 0.999) <= 0.25);
  assert.equal(shareWithin(run, 0.1), 0.995);
  assert.throws(() => bucketsOf(text(values), 'lag_seconds', { since: 'never' }), /there is no lag_seconds/);
});
