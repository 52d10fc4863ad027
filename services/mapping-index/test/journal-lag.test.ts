import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeDescriptors, encodeDescriptors } from '@midmirror/events';
import { BatchBuilder, DescriptorKind } from '@midmirror/journal';
import { JournalLag } from '../journal-lag.ts';

const NOW_NS = 1_800_000_000_000_000_000n;
const MS = 1_000_000n;

/** One after the other, each with so many writes at its time. */
function batches(...of: { writes: number; timeNs: bigint }[]): Uint8Array {
  const builder = new BatchBuilder(8);
  let firstSeq = 1;
  const parts = of.map(({ writes, timeNs }) => {
    builder.reset();
    for (let i = 0; i < writes; i += 1) builder.add(DescriptorKind.write, 0, 0, i * 4096, 4096, 4096);
    const place = { epoch: 1, segment: 1, offset: firstSeq * 4096, firstSeq, timeNs };
    firstSeq += writes;
    const rest = { durableSeq: 0, writeCount: writes, dataBytes: writes * 4096, previousCrc: 0 };
    return builder.finish({ ...place, ...rest }).slice();
  });
  return Buffer.concat(parts);
}

function encoded(durableNs: bigint | null, bytes: Uint8Array): ReturnType<typeof decodeDescriptors> {
  const descriptors = { volumeId: 'v', epoch: 1, firstSeq: 1, lastSeq: 4, durableNs, batches: bytes };
  return decodeDescriptors(encodeDescriptors(descriptors, '1-0-1', '/test'));
}

test('each write counts with its own time, and with when the first of its message became durable', () => {
  const lag = new JournalLag();
  const bytes = batches({ writes: 3, timeNs: NOW_NS - 200n * MS }, { writes: 1, timeNs: NOW_NS - 40n * MS });
  const told = encoded(NOW_NS - 20n * MS, bytes);
  lag.handled(told.batches, told.durableNs, NOW_NS);
  assert.equal(lag.sinceStored.count, 4);
  assert.ok(Math.abs(lag.sinceStored.sum - 0.64) < 1e-9, String(lag.sinceStored.sum));
  assert.equal(lag.sinceDurable.count, 4);
  assert.ok(Math.abs(lag.sinceDurable.sum - 0.08) < 1e-9, String(lag.sinceDurable.sum));
});

test('what an earlier owner left unpublished has a time of writing only; a clock that is ahead makes no lag', () => {
  const lag = new JournalLag();
  const told = encoded(null, batches({ writes: 2, timeNs: NOW_NS + MS }));
  lag.handled(told.batches, told.durableNs, NOW_NS);
  assert.deepEqual([lag.sinceStored.count, lag.sinceStored.sum, lag.sinceDurable.count], [2, 0, 0]);
});
