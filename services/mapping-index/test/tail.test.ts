import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BatchBuilder, DescriptorKind } from '@midmirror/journal';
import fc from 'fast-check';
import { batchesOf, Tail } from '../tail.ts';

const BATCHES = 12;
const DATA_BYTES = 4096;

/** The descriptor log of a segment, and where each batch of it begins. */
function logOf(segment: number): { bytes: Uint8Array; starts: number[] } {
  const builder = new BatchBuilder(1);
  const starts: number[] = [];
  const parts: Uint8Array[] = [];
  for (let i = 0; i < BATCHES; i += 1) {
    starts.push(parts.reduce((sum, part) => sum + part.length, 0));
    builder.reset();
    builder.add(DescriptorKind.write, 0, i, i * DATA_BYTES, DATA_BYTES, 4096 + i * 8192);
    const place = { epoch: 1, segment, offset: 4096 + i * 8192 };
    const write = { firstSeq: i + 1, timeNs: BigInt(1000 + i), durableSeq: i, writeCount: 1 };
    parts.push(builder.finish({ ...place, ...write, dataBytes: DATA_BYTES, previousCrc: 0 }).slice());
  }
  return { bytes: Buffer.concat(parts), starts };
}

test('descriptors that come again, cut in another way, are there once and in order', () => {
  const { bytes, starts } = logOf(7);
  // Each round publishes the log from its start or from where it stands, up to some batch.
  const rounds = fc.array(
    fc.record({
      fromStart: fc.boolean(),
      upTo: fc.integer({ min: 1, max: BATCHES }),
      cut: fc.integer({ min: 1, max: 5 }),
    }),
    { minLength: 1, maxLength: 6 },
  );
  fc.assert(
    fc.property(rounds, (published) => {
      const tail = new Tail();
      let position = 100;
      let [reached, standsAt] = [0, 0];
      for (const { fromStart, upTo, cut } of published) {
        const from = fromStart ? 0 : standsAt;
        for (let first = from; first < upTo; first += cut) {
          const end = Math.min(first + cut, upTo);
          tail.add(position++, bytes.slice(starts[first], starts[end] ?? bytes.length));
        }
        standsAt = Math.max(from, upTo);
        reached = Math.max(reached, standsAt);
      }
      const segment = tail.segment(7)!;
      assert.deepEqual(
        [...batchesOf(segment)].map(({ batch }) => batch.firstSeq),
        Array.from({ length: reached }, (_, i) => i + 1),
      );
      assert.equal(segment.firstPosition, 100);
      assert.deepEqual(
        segment.messages.map(({ firstSeq, timeNs }) => [firstSeq, Number(timeNs)]),
        segment.messages.map(({ firstSeq }) => [firstSeq, 999 + firstSeq]),
      );
    }),
  );
});

test('after a loss the stream is read from where the descriptors came again', () => {
  const { bytes, starts } = logOf(7);
  const tail = new Tail();
  tail.add(50, bytes.slice(0, starts[3]));
  tail.add(20, bytes.slice(0, starts[5]));
  assert.equal(tail.firstPosition, 20);
  assert.equal([...batchesOf(tail.segment(7)!)].length, 5);
});
