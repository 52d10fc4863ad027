// What is at risk, against a naive history that keeps every write and what has become of it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DurablePoint } from '../durable-point.ts';

test('the oldest write that waits, and the latest that does not, as a list of all writes says', () => {
  const step = fc.constantFrom('store', 'begin', 'end', 'seal');
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const point = new DurablePoint(0, 0n);
      const writes: { timeNs: bigint; state: 'rest' | 'round' | 'durable' }[] = [];
      let roundSeq: number | null = null;
      let durableSeq = 0;
      let now = 0n;
      for (const what of steps) {
        now += 1n;
        if (what === 'store') {
          writes.push({ timeNs: now, state: 'rest' });
          point.stored(now);
        } else if (what === 'begin' && roundSeq === null) {
          roundSeq = writes.length;
          point.begin(roundSeq, writes.at(-1)?.timeNs ?? 0n);
          for (const write of writes) if (write.state === 'rest') write.state = 'round';
        } else if (what === 'end' && roundSeq !== null) {
          point.end();
          durableSeq = roundSeq;
          roundSeq = null;
          for (const write of writes) if (write.state === 'round') write.state = 'durable';
        } else if (what === 'seal') {
          point.restIsDurable();
          for (const write of writes) if (write.state === 'rest') write.state = 'durable';
        }
        const oldest = writes.find(({ state }) => state !== 'durable');
        assert.equal(point.waitingSinceNs, oldest?.timeNs ?? 0n);
        assert.equal(point.seq, durableSeq);
        assert.equal(point.timeNs, writes[durableSeq - 1]?.timeNs ?? 0n);
      }
    }),
  );
});
