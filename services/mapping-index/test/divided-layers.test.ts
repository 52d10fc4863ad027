import assert from 'node:assert/strict';
import { test } from 'node:test';
import { coveringRuns, insertRun } from '@midmirror/catalog';
import { PageCache, RunLayers } from '@midmirror/runs';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import type { PlaceCursor } from '@midmirror/vrmo';
import fc from 'fast-check';
import { DividedLayers } from '../divided-layers.ts';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';

const BLOCKS = 60;
/** Batches of a segment begin with headers: so many bytes between some of the writes' data. */
const HEADER_BYTES = 96;

const write = fc.record({
  block: fc.nat(BLOCKS - 1),
  blocks: fc.integer({ min: 1, max: 6 }),
  zero: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  newBatch: fc.boolean(),
});
type Write = typeof write extends fc.Arbitrary<infer T> ? T : never;

/** The map that some writes of a segment leave, and where the data of the next begins. */
function after(segment: number, writes: readonly Write[], count: number): { map: ExtentMap; end: number } {
  const map = new ExtentMap();
  let end = 4096;
  writes.forEach(({ block, blocks, zero, newBatch }, i) => {
    if (newBatch && i <= count) end += HEADER_BYTES;
    if (i >= count) return;
    const flags = zero ? ExtentFlag.zero : ExtentFlag.whole;
    map.put(block * 512, blocks * 512, flags, segment, zero ? 0 : end, zero ? 0 : i);
    if (!zero) end += blocks * 512;
  });
  return { map, end };
}

function blocksOf(c: PlaceCursor, start: number, end: number): string[] {
  const found: string[] = [];
  for (; c.valid && c.start < end; c.next())
    for (let at = Math.max(c.start, start); at < Math.min(c.end, end); at += 512)
      found.push(`${at}: ${c.source} ${c.flags & ExtentFlag.zero ? 'zero' : c.offset + at - c.start}`);
  return found;
}

test('a point within a segment is found as if all its descriptors were read, which few ranges need', () =>
  withCatalog(async (catalog) => {
    let looks = 0;
    let loads = 0;
    const writes = fc.array(write, { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(writes, writes, fc.nat(), fc.nat(BLOCKS - 1), async (older, newer, some, block) => {
        await catalog.db.deleteFrom('run').execute();
        await catalog.db.deleteFrom('pel_page').execute();
        for (const [source, all] of [older, newer].entries()) {
          const { map } = after(source + 1, all, all.length);
          const run = { volume_id: 'v1', side: 'forward', source: source + 1, snapshot: 0, data_bytes: 0 };
          const numbers = { from_seq: source * 100, to_seq: source * 100 + 99, extents: map.size };
          await catalog.transaction((tx) => insertRun(tx, { ...run, ...numbers }, map));
        }
        const [below, cut] = await coveringRuns(catalog.db, 'v1', 'forward', 1, 2);
        const point = after(2, newer, some % newer.length);
        const cache = new PageCache(catalog.db, 1 << 20);
        const exact = new RunLayers([below!], point.map, cache);
        let loaded = false;
        const divided = new DividedLayers(
          new RunLayers([cut!, below!], new ExtentMap(), cache),
          2,
          point.end,
          async () => {
            loaded = true;
            return exact;
          },
        );
        for (const at of [block, (block * 7) % BLOCKS, (block * 13) % BLOCKS]) {
          const [start, end] = [at * 512, (at + 3) * 512];
          const expected = blocksOf(await exact.find(start, end - start), start, end);
          assert.deepEqual(blocksOf(await divided.find(start, end - start), start, end), expected);
          const now = divided.tryFind(start, end - start);
          assert.ok(now !== null, 'what was found once is found without waiting');
          assert.deepEqual(blocksOf(now, start, end), expected);
        }
        looks += 1;
        if (loaded) loads += 1;
      }),
      { numRuns: 150 },
    );
    assert.ok(loads > 0 && loads < looks, `${loads} of ${looks} read the descriptors`);
  }));
