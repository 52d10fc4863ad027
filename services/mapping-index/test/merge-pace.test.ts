// Merging takes what others leave of the event loop, and never nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { limits } from '../limits.ts';
import { restAfterSliceMs } from '../merge-pace.ts';

test('on an idle loop a slice rests as long as it worked; on a full one merging keeps its small share', () => {
  assert.equal(restAfterSliceMs(6, 0), 6);
  const share = 6 / (6 + restAfterSliceMs(6, 1));
  assert.ok(Math.abs(share - limits.mergeShareMin) < 1e-9, `${share}`);
});

test('a busier loop never means a shorter rest, and every rest has its bounds', () => {
  const busy = fc.double({ min: 0, max: 1, noNaN: true });
  const worked = fc.double({ min: 0, max: 10_000, noNaN: true });
  fc.assert(
    fc.property(worked, busy, busy, (ms, a, b) => {
      const [less, more] = [Math.min(a, b), Math.max(a, b)];
      const rest = restAfterSliceMs(ms, less);
      assert.ok(rest <= restAfterSliceMs(ms, more));
      assert.ok(rest >= limits.mergeRestMsMin && rest <= limits.mergeRestMsMax);
    }),
  );
});
