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

interface Told {
  epoch: number;
  segment: number;
  firstSeq: number;
  real: boolean;
}

function message(batches: readonly Told[], slot: (batch: Told) => number): Uint8Array {
  const builder = new BatchBuilder(1);
  const parts = batches.map((batch) => {
    const { epoch, segment, firstSeq } = batch;
    const offset = 4096 + slot(batch) * 8192;
    builder.reset();
    builder.add(DescriptorKind.write, 0, firstSeq, 0, DATA_BYTES, offset);
    const write = { firstSeq, timeNs: BigInt(1000 + firstSeq), durableSeq: 0, writeCount: 1 };
    return builder
      .finish({ ...{ epoch, segment, offset }, ...write, dataBytes: DATA_BYTES, previousCrc: 0 })
      .slice();
  });
  return Buffer.concat(parts);
}

test('what displaced owners wrote after they had lost the journal is cut off, whenever it comes', () => {
  // Of each owner: how much of its last segments is real, and what it went on with when it did not know yet.
  const owner = fc.record({
    segments: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
    phantomsInLast: fc.integer({ min: 0, max: 3 }),
    phantomSegments: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 }),
    skipsNumbers: fc.integer({ min: 0, max: 2 }),
  });
  const all = { phantoms: 0, kept: 0 };
  fc.assert(
    fc.property(
      fc.array(owner, { minLength: 2, maxLength: 4 }),
      fc.infiniteStream(fc.nat({ max: 99 })),
      (owners, random) => {
        let [seq, segment, position] = [0, 0, 10];
        const published: Told[][] = [];
        const late: Told[][] = [];
        for (const [index, { segments, phantomsInLast, phantomSegments, skipsNumbers }] of owners.entries()) {
          const epoch = index + 1;
          for (const count of segments) {
            segment += 1;
            published.push(
              Array.from({ length: count }, () => ({ epoch, segment, firstSeq: ++seq, real: true })),
            );
          }
          if (index === owners.length - 1) break;
          let phantomSeq = seq;
          const phantoms = (count: number, of: number): Told[] =>
            Array.from({ length: count }, () => ({
              epoch,
              segment: of,
              firstSeq: ++phantomSeq,
              real: false,
            }));
          late.push(phantoms(phantomsInLast, segment));
          late.push(...phantomSegments.map((count, i) => phantoms(count, segment + 1 + i)));
          // Its successor counts on from the files that it finds, or has them removed.
          segment += skipsNumbers;
        }
        const bySegment = new Map<string, Told[]>();
        for (const told of [...published, ...late])
          for (const batch of told) {
            const key = `${batch.epoch}/${batch.segment}`;
            bySegment.set(key, [...(bySegment.get(key) ?? []), batch]);
          }
        const slot = (batch: Told): number =>
          bySegment.get(`${batch.epoch}/${batch.segment}`)!.indexOf(batch);
        const tail = new Tail();
        // Each owner publishes in order; the late ones come in anywhere behind what they follow.
        const queue = late.filter((told) => told.length > 0);
        for (const told of published) {
          tail.add(position++, message(told, slot));
          const next = queue[0];
          const follows = next !== undefined && next[0]!.firstSeq <= told.at(-1)!.firstSeq + 1;
          if (follows && random.next().value < 60) {
            tail.add(position++, message(queue.shift()!, slot));
            all.phantoms += 1;
          }
        }
        for (const told of queue) {
          tail.add(position++, message(told, slot));
          all.phantoms += 1;
        }
        const found = tail.segments.flatMap((of) =>
          [...batchesOf(of)].map(({ batch }) => `${batch.epoch}/${batch.segment}/${batch.firstSeq}`),
        );
        const real = published.flat().map((told) => `${told.epoch}/${told.segment}/${told.firstSeq}`);
        assert.deepEqual(found, real);
        all.kept += found.length;
      },
    ),
    { numRuns: 500 },
  );
  assert.ok(all.phantoms > 300 && all.kept > 300, JSON.stringify(all));
});

test('a segment whose run is stored, or that has left the ring, leaves nothing behind when it comes again', () => {
  const tail = new Tail();
  tail.add(10, logOf(7).bytes);
  tail.add(11, logOf(8).bytes);
  tail.drop(7);
  tail.add(12, logOf(7).bytes);
  assert.deepEqual(
    tail.segments.map(({ segment }) => segment),
    [8],
  );
  assert.equal(tail.firstPosition, 11);
  tail.recycled(8);
  tail.add(13, logOf(7).bytes);
  tail.add(14, logOf(8).bytes);
  assert.equal(tail.firstPosition, null);
  assert.equal(tail.isDone(9), false);
});
