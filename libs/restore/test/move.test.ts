// Moving a plan onto a target that forgets what was not flushed, with the power lost at any moment: what is noted as done
// is there, and going on from it gives the bytes of the point. Storage that lies is found.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SeededRandom } from '@midmirror/basis';
import { RangeList } from '../core/range-list.ts';
import type { Target } from '../edges/target.ts';
import { limits } from '../limits.ts';
import { move } from '../move.ts';

const SIZE = 4 << 20;
const SECTOR = 512;

class PowerLost extends Error {}

/** Writes are remembered apart until a flush; at a power loss each of them is there, or not. */
class ForgetfulTarget implements Target {
  readonly name = 'forgetful';
  readonly sizeBytes = SIZE;
  readonly blockBytes = SECTOR;
  readonly canFlush = true;
  readonly durable: Buffer;
  readonly #random: SeededRandom;
  #unflushed: { start: number; bytes: Uint8Array }[] = [];
  #operationsLeft: number;

  constructor(durable: Buffer, random: SeededRandom, operations: number) {
    this.durable = durable;
    this.#random = random;
    this.#operationsLeft = operations;
  }

  async read(start: number, length: number, into: Uint8Array): Promise<void> {
    this.#step();
    const now = Buffer.from(this.durable.subarray(start, start + length));
    for (const write of this.#unflushed) {
      const from = Math.max(start, write.start);
      const to = Math.min(start + length, write.start + write.bytes.length);
      if (from < to) now.set(write.bytes.subarray(from - write.start, to - write.start), from - start);
    }
    into.set(now);
  }

  async write(start: number, bytes: Uint8Array): Promise<void> {
    this.#step();
    this.#unflushed.push({ start, bytes: bytes.slice() });
  }

  async zeroes(start: number, length: number): Promise<void> {
    await this.write(start, new Uint8Array(length));
  }

  async flush(): Promise<void> {
    this.#step();
    for (const { start, bytes } of this.#unflushed) this.durable.set(bytes, start);
    this.#unflushed = [];
  }

  async zeroParts(_start: number, lengthBytes: number) {
    return [{ lengthBytes, zeroes: false }];
  }

  async dropCaches(): Promise<boolean> {
    return true;
  }

  async close(): Promise<void> {}

  #step(): void {
    this.#operationsLeft -= 1;
    if (this.#operationsLeft > 0) return;
    if (this.#operationsLeft === 0)
      for (const { start, bytes } of this.#unflushed)
        if (this.#random.chance(0.5)) this.durable.set(bytes, start);
    throw new PowerLost('the power is lost');
  }
}

function point(random: SeededRandom): Buffer {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 4) bytes.writeUInt32LE(random.below(2 ** 31), at);
  return bytes;
}

/** The point, an older disk, and the plan from the one to the other. */
function scene(seed: number, fresh: boolean) {
  const random = new SeededRandom(seed);
  const wanted = point(random);
  const disk = fresh ? Buffer.alloc(SIZE) : Buffer.from(wanted);
  const ranges = new RangeList({ rangesMax: limits.rangesMax, alignBytes: SECTOR, sizeBytes: SIZE });
  for (let at = 0; at < SIZE; ) {
    const length = Math.min(SIZE - at, (1 + random.below(400)) * SECTOR);
    if (random.chance(0.4)) {
      const zeroes = random.chance(0.3);
      if (zeroes) wanted.fill(0, at, at + length);
      if (!fresh) disk.fill(random.below(256), at, at + length);
      ranges.add(at, length, zeroes);
    } else if (fresh) wanted.fill(0, at, at + length);
    at += length;
  }
  const source = {
    read: async (start: number, length: number, into: Uint8Array) =>
      into.set(wanted.subarray(start, start + length)),
  };
  return { random, wanted, disk, ranges, source };
}

test('however often the power is lost, what is noted is there, and the end is the point', async () => {
  const shapes = fc.record({
    seed: fc.nat(),
    fresh: fc.boolean(),
    losses: fc.array(fc.integer({ min: 1, max: 120 }), { maxLength: 5 }),
  });
  await fc.assert(
    fc.asyncProperty(shapes, async ({ seed, fresh, losses }) => {
      const { random, wanted, disk, ranges, source } = scene(seed, fresh);
      let doneBytes = 0;
      for (const operations of [...losses, Number.POSITIVE_INFINITY]) {
        const target = new ForgetfulTarget(disk, random, operations);
        const moving = move({
          source,
          target,
          ranges,
          fromBytes: doneBytes,
          holesAreZeroes: fresh,
          verify: true,
          report: () => {},
          reached: async (done) => {
            doneBytes = done;
          },
          windows: { pieceBytesMax: 64 << 10, windowBytesMax: 256 << 10, windowPiecesMax: 8 },
        });
        if (operations === Number.POSITIVE_INFINITY) await moving;
        else await moving.catch((error: unknown) => assert.ok(error instanceof PowerLost, String(error)));
        for (const { startBytes, lengthBytes } of ranges) {
          const end = Math.min(startBytes + lengthBytes, doneBytes);
          if (end > startBytes)
            assert.ok(disk.subarray(startBytes, end).equals(wanted.subarray(startBytes, end)), 'noted');
        }
      }
      assert.ok(disk.equals(wanted));
    }),
    { numRuns: 60 },
  );
});

test('storage that gives back other bytes than it took is found, and nothing of it noted', async () => {
  const { random, disk, ranges, source } = scene(7, false);
  class Liar extends ForgetfulTarget {
    override async write(start: number, bytes: Uint8Array): Promise<void> {
      const kept = bytes.slice();
      kept[kept.length - 1]! ^= 1;
      await super.write(start, kept);
    }
  }
  const reached: number[] = [];
  const options = {
    source,
    target: new Liar(disk, random, Number.POSITIVE_INFINITY),
    ranges,
    fromBytes: 0,
    holesAreZeroes: false,
    report: () => {},
    reached: async (done: number) => void reached.push(done),
  };
  await assert.rejects(move({ ...options, verify: true }), /gives back other bytes .* at \d+/);
  assert.deepEqual(reached, []);
  // Without reading back nobody sees it.
  await move({ ...options, verify: false });
});

test('an error of the target ends it, with nothing left running', async () => {
  const { random, disk, ranges, source } = scene(11, false);
  const target = new ForgetfulTarget(disk, random, 5);
  await assert.rejects(
    move({
      source,
      target,
      ranges,
      fromBytes: 0,
      holesAreZeroes: false,
      verify: true,
      report: () => {},
      reached: async () => {},
    }),
    PowerLost,
  );
});
