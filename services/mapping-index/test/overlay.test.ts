import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PageBuilder, packPages, type PelPage, unpackPage } from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import fc from 'fast-check';
import { Overlay } from '../overlay.ts';

const extent = fc.record({
  block: fc.nat(300),
  blocks: fc.integer({ min: 1, max: 30 }),
  zero: fc.boolean(),
  offset: fc.nat(1000).map((n) => n * 8),
});

/** Pages of a few extents, so that each run has several. */
function pagesOf(map: ExtentMap, perPage: number): PelPage[] {
  const pages: PelPage[] = [];
  const extents: Parameters<ExtentMap['put']>[] = [];
  for (const c = map.cursor(); c.valid; c.next())
    extents.push([c.start, c.length, c.flags, c.source, c.offset, c.crc]);
  for (let at = 0; at < extents.length; at += perPage) {
    const part = new ExtentMap();
    for (const one of extents.slice(at, at + perPage)) part.put(...one);
    const [packed] = packPages(part);
    const page = unpackPage(0, packed!.page)!;
    pages.push({ ...page, startBytes: at === 0 ? 0 : extents[at]![0] });
  }
  return pages;
}

test('the overlay of any runs, page by page, is what putting them one over the other gives', () => {
  const runs = fc.array(fc.array(extent, { maxLength: 40 }), { minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(
      runs,
      fc.integer({ min: 1, max: 7 }),
      fc.integer({ min: 1, max: 9 }),
      (all, perPage, slice) => {
        const expected = new ExtentMap();
        const inputs = all.map((extents, source) => {
          const map = new ExtentMap();
          for (const { block, blocks, zero, offset } of extents) {
            const flags = zero ? ExtentFlag.zero : ExtentFlag.whole;
            map.put(block * 512, blocks * 512, flags, source, zero ? 0 : offset, zero ? 0 : blocks);
          }
          return map;
        });
        for (const map of inputs.toReversed())
          for (const c = map.cursor(); c.valid; c.next())
            expected.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
        const found: number[][] = [];
        const overlay = new Overlay(inputs.length, { add: (...one) => void found.push(one) });
        const pages = inputs.map((map) => pagesOf(map, perPage));
        while (!overlay.run(slice))
          for (const rank of overlay.hungry) overlay.feed(rank, pages[rank]!.shift() ?? null);
        assert.deepEqual(blocksOf(found), blocksOf(extentsOf(expected)));
        for (const [, length, flags, , , crc] of found)
          if (flags! & ExtentFlag.whole)
            assert.equal(crc! * 512, length, 'only a whole extent has a checksum');
      },
    ),
    { numRuns: 3000 },
  );
});

function extentsOf(map: ExtentMap): number[][] {
  const extents: number[][] = [];
  for (const c = map.cursor(); c.valid; c.next())
    extents.push([c.start, c.length, c.flags, c.source, c.offset, c.crc]);
  return extents;
}

/** Where each block lies. Extents must be ascending and not overlap. */
function blocksOf(extents: readonly number[][]): string[] {
  const blocks: string[] = [];
  let end = 0;
  for (const [start, length, flags, source, offset] of extents) {
    assert.ok(start! >= end, 'extents ascend');
    end = start! + length!;
    for (let at = 0; at < length!; at += 512) {
      const zero = (flags! & ExtentFlag.zero) !== 0;
      blocks.push(`${start! + at} ${zero ? 'zero' : offset! + at} of ${source}`);
    }
  }
  return blocks;
}

test('pages keep what they are given, tell where they end, and a flipped bit shows', () => {
  const builder = new PageBuilder();
  const given: number[][] = [];
  for (let i = 0; i < 1300; i += 1) {
    const zero = i % 7 === 0;
    const flags = zero ? ExtentFlag.zero | ExtentFlag.trim : ExtentFlag.whole | ExtentFlag.backward;
    given.push([i * 8192 + 2 ** 43, 4096, flags, i % 3, zero ? 0 : i * 4133 + (i % 2), zero ? 0 : i]);
  }
  for (const [start, length, flags, source, offset, crc] of given)
    builder.add(start!, length!, flags!, source!, offset!, crc!);
  const pages = builder.end();
  const back: number[][] = [];
  let expectedStart = 0;
  for (const { startBytes, page } of pages) {
    assert.equal(startBytes, expectedStart, 'pages leave no gap');
    const unpacked = unpackPage(startBytes, page)!;
    for (let i = 0; i < unpacked.count; i += 1) {
      const [packed, source, offset, crc] = unpacked.words.subarray(i * 4, i * 4 + 4);
      back.push([unpacked.starts[i]!, packed! - (packed! & 511), packed! & 511, source!, offset!, crc!]);
    }
    expectedStart = unpacked.endBytes;
    for (let bit = 0; bit < page.length * 8; bit += 797) {
      const bad = page.slice();
      bad[bit >> 3]! ^= 1 << (bit & 7);
      assert.equal(unpackPage(startBytes, bad), null, `bit ${bit}`);
    }
  }
  assert.equal(expectedStart, Number.POSITIVE_INFINITY);
  assert.deepEqual(back, given);
});
