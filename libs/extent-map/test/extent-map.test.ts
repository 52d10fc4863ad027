import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ExtentFlag, ExtentMap } from '../index.ts';
import { NaiveExtentMap } from './naive-extent-map.ts';

const operation = fc.record({
  kind: fc.constantFrom('put', 'put', 'put', 'under', 'erase', 'removeSource'),
  block: fc.integer({ min: 0, max: 400 }),
  blocks: fc.integer({ min: 1, max: 40 }),
  zero: fc.boolean(),
  backward: fc.boolean(),
  source: fc.integer({ min: 0, max: 5 }),
  offset: fc.integer({ min: 0, max: 1000 }).map((n) => n * 512),
});

function check(map: ExtentMap, naive: NaiveExtentMap): void {
  let covered = 0;
  let count = 0;
  let previousEnd = -1;
  for (const cursor = map.cursor(); cursor.valid; cursor.next()) {
    assert.ok(cursor.start >= previousEnd, 'extents are ordered and do not overlap');
    assert.ok(cursor.length > 0);
    previousEnd = cursor.end;
    count += 1;
    for (let at = 0; at < cursor.length; at += 512) {
      const zero = (cursor.flags & ExtentFlag.zero) !== 0;
      assert.deepEqual(naive.blocks.get(cursor.start + at), {
        zero,
        backward: (cursor.flags & ExtentFlag.backward) !== 0,
        source: cursor.source,
        offset: zero ? -1 : cursor.offset + at,
      });
      covered += 1;
    }
    if (cursor.flags & ExtentFlag.whole) assert.equal(cursor.crc, cursor.length);
  }
  assert.equal(covered, naive.blocks.size);
  assert.equal(count, map.size);
}

test('any sequence of puts, under-puts and erasures maps every block as the naive twin does', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 120 }), (operations) => {
      const map = new ExtentMap();
      const naive = new NaiveExtentMap();
      for (const { kind, block, blocks, zero, backward, source, offset } of operations) {
        const start = block * 512;
        const length = blocks * 512;
        const flags = (zero ? ExtentFlag.zero : ExtentFlag.whole) | (backward ? ExtentFlag.backward : 0);
        if (kind === 'put') map.put(start, length, flags, source, offset, length);
        else if (kind === 'under') map.putUnder(start, length, flags, source, offset, length);
        else if (kind === 'erase') map.erase(start, length);
        else map.removeWhere((_flags, entrySource) => entrySource === source);
        if (kind === 'put' || kind === 'under') {
          naive.put(start, length, { zero, backward, source, offset }, kind === 'under');
        } else if (kind === 'erase') naive.erase(start, length);
        else for (const [address, at] of naive.blocks) if (at.source === source) naive.blocks.delete(address);
      }
      check(map, naive);
    }),
    { numRuns: 1500 },
  );
});

test('many small extents split, empty and refill leaves as the naive twin does', () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(fc.nat(20_000), { minLength: 2000, maxLength: 4000 }),
      (salt, blocks) => {
        const map = new ExtentMap();
        const naive = new NaiveExtentMap();
        blocks.forEach((block, i) => {
          const start = block * 512;
          const wide = (i + salt) % 97 === 0;
          const length = wide ? 512 * 3000 : 512 * (1 + (i % 3));
          if (wide) {
            map.erase(start, length);
            naive.erase(start, length);
          } else {
            map.put(start, length, ExtentFlag.whole, i, i * 512, length);
            naive.put(start, length, { zero: false, backward: false, source: i, offset: i * 512 }, false);
          }
        });
        check(map, naive);
      },
    ),
    { numRuns: 20 },
  );
});

test('a map that loses almost all of its extents gives their memory back and goes on as before', () => {
  const map = new ExtentMap();
  const naive = new NaiveExtentMap();
  const put = (block: number, source: number): void => {
    map.put(block * 512, 512, ExtentFlag.whole, source, block * 512, 512);
    naive.put(block * 512, 512, { zero: false, backward: false, source, offset: block * 512 }, false);
  };
  for (let block = 0; block < 40_000; block += 1) put((block * 7919) % 40_000, block % 50);
  const before = map.memoryBytes;
  map.removeWhere((_flags, source) => source > 0);
  for (const [at, { source }] of naive.blocks) if (source > 0) naive.blocks.delete(at);
  check(map, naive);
  assert.ok(map.memoryBytes < before / 20);
  for (let block = 0; block < 20_000; block += 1) put((block * 104_729) % 40_000, 1);
  check(map, naive);
});

test('a seek lands on the extent that covers the address, else on the next one', () => {
  const map = new ExtentMap();
  for (let i = 0; i < 10_000; i += 1) map.put(i * 4096, 2048, ExtentFlag.whole, 1, i, 2048);
  const cursor = map.cursor();
  assert.equal(cursor.seek(4096 * 5000 + 512).start, 4096 * 5000);
  assert.equal(cursor.seek(4096 * 5000 + 2048).start, 4096 * 5001);
  assert.equal(cursor.seek(4096 * 10_000).valid, false);
});

test('addresses beyond 4 GiB and zero extents near 4 GiB keep their numbers', () => {
  const map = new ExtentMap();
  const long = 2 ** 32 - 512;
  map.put(2 ** 44, long, ExtentFlag.zero, 0, 0, 0);
  map.put(2 ** 44 + 4096, 512, ExtentFlag.whole, 7, 2 ** 31 + 512, 9);
  const cursor = map.cursor(2 ** 44);
  assert.equal(cursor.length, 4096);
  cursor.next();
  assert.deepEqual(
    [cursor.start, cursor.source, cursor.offset, cursor.crc],
    [2 ** 44 + 4096, 7, 2 ** 31 + 512, 9],
  );
  cursor.next();
  assert.equal(cursor.end, 2 ** 44 + long);
});
