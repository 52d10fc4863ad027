// Planning against a target that is there: by digests, by reading where there are none, and by the target's own word of
// its zeroes. Whatever differs is in the plan, blocks that are the same are not.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { SeededRandom } from '@midmirror/basis';
import type { Digests } from '../edges/compare.ts';
import type { Source } from '../edges/mirror-source.ts';
import type { Target } from '../edges/target.ts';
import { limits } from '../limits.ts';
import { checkBase, planByComparing, planKnown, planNew } from '../make-plan.ts';

const BLOCK = limits.compareBlockBytes;
/** Some more than one chunk, and no multiple of a block. */
const SIZE = limits.compareChunkBytes + 5 * BLOCK + 512;
const BLOCKS = Math.ceil(SIZE / BLOCK);

type Kind = 'same' | 'both-zero' | 'point-zero' | 'target-zero' | 'differs';
const KINDS: readonly Kind[] = ['same', 'both-zero', 'point-zero', 'target-zero', 'differs'];

function scene(seed: number) {
  const random = new SeededRandom(seed);
  const point = Buffer.alloc(SIZE);
  const disk = Buffer.alloc(SIZE);
  const kinds: Kind[] = [];
  for (let block = 0; block < BLOCKS; block += 1) {
    const kind = random.chance(0.6) && block > 0 ? kinds[block - 1]! : random.pick(KINDS);
    kinds.push(kind);
    const [from, to] = [block * BLOCK, Math.min((block + 1) * BLOCK, SIZE)];
    const fill = 1 + random.below(255);
    if (kind === 'same' || kind === 'differs' || kind === 'target-zero') point.fill(fill, from, to);
    if (kind === 'same' || kind === 'differs' || kind === 'point-zero') disk.fill(fill, from, to);
    // One byte is enough.
    if (kind === 'differs') disk[from + random.below(to - from)]! ^= 0x10;
  }
  const parts = (holds: (kind: Kind) => boolean, start: number, length: number) => {
    const all: { lengthBytes: number; zeroes: boolean }[] = [];
    for (let at = start; at < start + length; ) {
      const end = Math.min((Math.floor(at / BLOCK) + 1) * BLOCK, start + length);
      all.push({ lengthBytes: end - at, zeroes: !holds(kinds[Math.floor(at / BLOCK)]!) });
      at = end;
    }
    return all;
  };
  const pointHolds = (kind: Kind): boolean => kind !== 'both-zero' && kind !== 'point-zero';
  const diskHolds = (kind: Kind): boolean => kind !== 'both-zero' && kind !== 'target-zero';
  const source: Source = {
    sizeBytes: SIZE,
    read: async (start, length, into) => into.set(point.subarray(start, start + length)),
    async *status(start, length) {
      for (const part of parts(pointHolds, start, length)) yield { ...part, differs: true };
    },
  };
  const target = (knowsZeroes: boolean): Target => ({
    name: 'disk',
    sizeBytes: SIZE,
    blockBytes: 512,
    canFlush: true,
    read: async (start, length, into) => into.set(disk.subarray(start, start + length)),
    write: async () => assert.fail('a plan writes nothing'),
    zeroes: async () => assert.fail('a plan writes nothing'),
    flush: async () => {},
    zeroParts: async (start, length) =>
      knowsZeroes ? parts(diskHolds, start, length) : [{ lengthBytes: length, zeroes: false }],
    dropCaches: async () => false,
    close: async () => {},
  });
  const digests: Digests = async (offset, length, blockBytes) => {
    const all: Buffer[] = [];
    for (let at = offset; at < offset + length; at += blockBytes) {
      const end = Math.min(at + blockBytes, offset + length);
      all.push(createHash('sha256').update(point.subarray(at, end)).digest());
    }
    return Buffer.concat(all);
  };
  return { point, disk, kinds, source, target, digests };
}

test('what differs is planned, to the block, however it is found', async () => {
  const shapes = fc.record({ seed: fc.nat(), digests: fc.boolean(), knowsZeroes: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(shapes, async ({ seed, digests, knowsZeroes }) => {
      const { kinds, source, target, digests: given } = scene(seed);
      const told: number[] = [];
      const { ranges, readBytes } = await planByComparing(
        source,
        target(knowsZeroes),
        digests ? given : async () => null,
        (_, done) => told.push(done),
      );
      const planned = kinds.map(() => 'same');
      for (const { startBytes, lengthBytes, zeroes } of ranges)
        for (let at = startBytes; at < startBytes + lengthBytes; at += BLOCK)
          planned[at / BLOCK] = zeroes ? 'zeroes' : 'data';
      const wanted = kinds.map((kind) => {
        if (kind === 'same' || kind === 'both-zero') return 'same';
        return kind === 'point-zero' ? 'zeroes' : 'data';
      });
      assert.deepEqual(planned, wanted);
      assert.equal(digests ? readBytes : 0, 0, 'with digests the point is not read');
      assert.deepEqual(told, [limits.compareChunkBytes, SIZE]);
    }),
    { numRuns: 25 },
  );
});

test('an appliance whose digests are too few is no reason to guess', async () => {
  const { source, target, digests } = scene(4);
  const short: Digests = async (...args) => (await digests(...args))!.subarray(32);
  await assert.rejects(
    planByComparing(source, target(false), short, () => {}),
    /bytes of digests at \d+/,
  );
});

test('a new target gets all data, one with a known base what the map says and a look at the rest', async () => {
  const { point, disk, kinds, source, target } = scene(12);
  const fresh = await planNew(source, 512);
  const data = kinds.filter((kind) => kind !== 'both-zero' && kind !== 'point-zero').length;
  assert.ok(fresh.bytes.all > (data - 1) * BLOCK && fresh.bytes.all <= data * BLOCK);

  const mapped: Source = {
    ...source,
    async *status(start, length) {
      let at = start;
      for await (const part of source.status(start, length)) {
        const kind = kinds[Math.floor(at / BLOCK)]!;
        at += part.lengthBytes;
        yield { ...part, differs: kind !== 'same' && kind !== 'both-zero' };
      }
    },
  };
  const ranges = await planKnown(mapped, 512);
  await checkBase(source, target(false), ranges);
  for (const { startBytes, lengthBytes } of ranges)
    point.copy(disk, startBytes, startBytes, startBytes + lengthBytes);
  assert.ok(disk.equals(point));
  disk.fill(0x77);
  await assert.rejects(checkBase(source, target(false), ranges), { code: 'conflict' });
});
