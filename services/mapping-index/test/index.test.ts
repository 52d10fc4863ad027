import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type MidmirrorError, SeededRandom } from '@midmirror/basis';
import {
  type Catalog,
  coveringRuns,
  deleteRun,
  insertRun,
  leveledRunsOf,
  RunGoneError,
} from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { PageCache, RunLayers } from '@midmirror/runs';
import type { PlaceCursor } from '@midmirror/vrmo';
import { TierMerger } from '../tier-merger.ts';
import { touchingRuns } from '../touching-runs.ts';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';

const BLOCKS = 4000;
const VOLUME = 'v1';

type Side = 'forward' | 'backward';

function randomMap(random: SeededRandom, side: Side, source: number): ExtentMap {
  const map = new ExtentMap();
  const backward = side === 'backward' ? ExtentFlag.backward : 0;
  for (let i = random.below(800); i >= 0; i -= 1) {
    const start = random.below(BLOCKS) * 512;
    const zero = random.chance(0.2);
    const flags = backward | (zero ? ExtentFlag.zero : ExtentFlag.whole);
    map.put(start, 512 * (1 + random.below(6)), flags, source, zero ? 0 : random.below(9999) * 8, 7);
  }
  return map;
}

async function store(catalog: Catalog, side: Side, source: number, map: ExtentMap): Promise<void> {
  const run = {
    ...{ volume_id: VOLUME, side, source, snapshot: side === 'backward' ? source : 0 },
    ...{ from_seq: source, to_seq: source, extents: map.size, data_bytes: 0 },
  };
  await catalog.transaction((tx) => insertRun(tx, run, map));
}

function blocks(map: { cursor(start: number): ReturnType<ExtentMap['cursor']> }, start: number, end: number) {
  const found: string[] = [];
  for (const c = map.cursor(start); c.valid && c.start < end; c.next()) {
    for (let at = Math.max(c.start, start); at < Math.min(c.end, end); at += 512) {
      const zero = (c.flags & ExtentFlag.zero) !== 0;
      found.push(`${at}:${c.source}:${zero ? 'zero' : c.offset + at - c.start}`);
    }
  }
  return found;
}

/** What the maps give when they are put one over the other, the first on top. */
function overlaid(maps: readonly ExtentMap[]): ExtentMap {
  const all = new ExtentMap();
  for (const map of maps.toReversed())
    for (const c = map.cursor(); c.valid; c.next())
      all.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
  return all;
}

for (const side of ['forward', 'backward'] as const) {
  test(`${side}: any point is found in the runs, before, while and after they are merged`, () =>
    withCatalog(async (catalog) => {
      const random = new SeededRandom(11);
      const maps: ExtentMap[] = [];
      const merger = new TierMerger(catalog, (message) => assert.fail(message));
      // Smaller than the index: pages come and go.
      const cache = new PageCache(catalog.db, 40_000);
      for (let source = 1; source <= 80; source += 1) {
        maps.push(randomMap(random, side, source));
        await store(catalog, side, source, maps.at(-1)!);
        if (source % 20 === 0) merger.changed(VOLUME, side, 'end');
        if (source % 40 === 0) await merger.idle();
        for (let look = 0; look < 3; look += 1) {
          const point = 1 + random.below(source);
          const [first, last] = side === 'forward' ? [1, point] : [point, 1e9];
          const runs = await coveringRuns(catalog.db, VOLUME, side, first, last);
          const strongest = side === 'forward' ? runs.reverse() : runs;
          const layers = new RunLayers(strongest, new ExtentMap(), cache);
          const chain = side === 'forward' ? maps.slice(0, point).reverse() : maps.slice(point - 1);
          const expected = overlaid(chain);
          const start = random.below(BLOCKS) * 512;
          const length = 512 * (1 + random.below(300));
          const cursor = await layers.find(start, length);
          assert.deepEqual(
            blocks({ cursor: () => cursor }, start, start + length),
            blocks(expected, start, start + length),
          );
        }
      }
      assert.ok(cache.bytes <= cache.bytesMax && cache.misses > 0 && cache.hits > 0);
      const levels = (await leveledRunsOf(catalog.db, VOLUME, side)).map((run) => run.level);
      assert.equal(Math.max(...levels), 2, '80 runs make ten of level 1 and one of level 2');
      await merger.stop();
    }));
}

test('runs that come while others merge are merged before the higher levels go on', () =>
  withCatalog(async (catalog) => {
    const random = new SeededRandom(7);
    const merger = new TierMerger(catalog, (message) => assert.fail(message));
    const runs = async (level: number) =>
      (await leveledRunsOf(catalog.db, VOLUME, 'forward')).filter((run) => run.level === level);
    const come = async (first: number, last: number): Promise<void> => {
      for (let source = first; source <= last; source += 1)
        await store(catalog, 'forward', source, randomMap(random, 'forward', source));
      merger.changed(VOLUME, 'forward', 'end');
    };
    await come(1, 64);
    await come(65, 72);
    assert.deepEqual(await runs(2), [], 'the later ones have come before there was a run of level 2');
    await merger.idle();
    const [later] = (await runs(1)).filter((run) => run.first_source === 65);
    const [above] = await runs(2);
    assert.ok(later!.id < above!.id);
    await merger.stop();
  }));

test('a drop takes the merged runs over it away; who reads them is told, and they are made again', () =>
  withCatalog(async (catalog) => {
    const random = new SeededRandom(5);
    const merger = new TierMerger(catalog, (message) => assert.fail(message));
    for (let source = 1; source <= 16; source += 1)
      await store(catalog, 'backward', source, randomMap(random, 'backward', source));
    merger.changed(VOLUME, 'backward');
    await merger.idle();
    const before = await coveringRuns(catalog.db, VOLUME, 'backward', 1, 1e9);
    assert.deepEqual(
      before.map((run) => [run.level, run.snapshot, run.last_snapshot]),
      [
        [1, 1, 8],
        [1, 9, 16],
      ],
    );
    await catalog.transaction((tx) => deleteRun(tx, VOLUME, 'backward', 3));
    const cache = new PageCache(catalog.db, 1 << 20);
    await assert.rejects(new RunLayers(before, new ExtentMap(), cache).find(0, 1 << 20), RunGoneError);
    merger.changed(VOLUME, 'backward');
    await merger.idle();
    const after = await coveringRuns(catalog.db, VOLUME, 'backward', 1, 1e9);
    assert.deepEqual(
      after.map((run) => [run.level, run.snapshot, run.last_snapshot]),
      [
        [1, 1, 8],
        [1, 9, 16],
      ],
    );
    const orphans = await catalog.db
      .selectFrom('pel_page')
      .select('run_id')
      .where('run_id', 'not in', catalog.db.selectFrom('run').select('id'))
      .execute();
    assert.deepEqual(orphans, [], 'no page is left of a run that has gone');
    await merger.stop();
  }));

test('a run that comes late takes the merged runs over it away: they are made again with it', () =>
  withCatalog(async (catalog) => {
    const random = new SeededRandom(13);
    const merger = new TierMerger(catalog, (message) => assert.fail(message));
    const cache = new PageCache(catalog.db, 1 << 20);
    const maps = Array.from({ length: 9 }, (_, i) => randomMap(random, 'forward', i + 1));
    const expected = overlaid(maps.toReversed());
    for (const source of [1, 2, 3, 4, 6, 7, 8, 9]) await store(catalog, 'forward', source, maps[source - 1]!);
    for (const late of [false, true]) {
      if (late) await store(catalog, 'forward', 5, maps[4]!);
      for (const merge of [false, true]) {
        if (merge) merger.changed(VOLUME, 'forward');
        await merger.idle();
        const runs = (await coveringRuns(catalog.db, VOLUME, 'forward', 1, 9)).reverse();
        assert.equal(runs.length, merge ? (late ? 2 : 1) : late ? 9 : 8);
        if (!late) continue;
        const cursor = await new RunLayers(runs, new ExtentMap(), cache).find(0, BLOCKS * 512);
        assert.deepEqual(
          blocks({ cursor: () => cursor }, 0, BLOCKS * 512),
          blocks(expected, 0, BLOCKS * 512),
        );
      }
    }
    await merger.stop();
  }));

for (const side of ['forward', 'backward'] as const) {
  test(`${side}: runs that have something of a range are found newest first, without a look at the others`, () =>
    withCatalog(async (catalog) => {
      for (let source = 1; source <= 100; source += 1) {
        const map = new ExtentMap();
        // Block 5 is of the sources 10, 20, …; all have a block of their own.
        if (source % 10 === 0) map.put(5 * 512, 512, ExtentFlag.whole, source, 4096, 1);
        map.put((1000 + source) * 512, 512, ExtentFlag.whole, source, 8192, 1);
        await store(catalog, side, source, map);
      }
      const merger = new TierMerger(catalog, (message) => assert.fail(message));
      merger.changed(VOLUME, side);
      await merger.idle();
      const cache = new PageCache(catalog.db, 1 << 20);
      const all = { first: 1, last: 100 };
      const found = async (block: number, units = all): Promise<number[]> => {
        const sources: number[] = [];
        const range = { offset: block * 512, length: 512 };
        for await (const { run } of touchingRuns(catalog.db, cache, VOLUME, side, units, range))
          sources.push(run.source);
        return sources;
      };
      assert.deepEqual(await found(5), [100, 90, 80, 70, 60, 50, 40, 30, 20, 10]);
      assert.deepEqual(await found(5, { first: 31, last: 77 }), [70, 60, 50, 40]);
      const before = cache.misses;
      assert.deepEqual(await found(1042), [42]);
      assert.ok(cache.misses - before <= 20, `${cache.misses - before} pages for one of a hundred runs`);
      await merger.stop();
    }));
}

test('a page that is damaged or missing is an error that names run and page, never another place', () =>
  withCatalog(async (catalog) => {
    const map = new ExtentMap();
    for (let i = 0; i < 2000; i += 1) map.put(i * 1024, 512, ExtentFlag.whole, 9, 4096 + i * 512, i);
    await store(catalog, 'forward', 9, map);
    const [run] = await coveringRuns(catalog.db, VOLUME, 'forward', 1, 9);
    const pages = await catalog.db.selectFrom('pel_page').selectAll().orderBy('start_bytes').execute();
    const find = (at: number): Promise<unknown> =>
      new RunLayers([run!], new ExtentMap(), new PageCache(catalog.db, 1 << 20)).find(at, 512);
    const [, second, , third] = pages;
    const bad = second!.page.slice();
    bad[100]! ^= 4;
    await catalog.db
      .updateTable('pel_page')
      .set({ page: bad })
      .where('start_bytes', '=', second!.start_bytes)
      .execute();
    await catalog.db.deleteFrom('pel_page').where('start_bytes', '=', third!.start_bytes).execute();
    const refused = (at: number, page: number, what: string): Promise<void> =>
      assert.rejects(find(at), (error: MidmirrorError) => {
        assert.equal(error.code, 'corrupt');
        assert.match(
          error.message,
          new RegExp(`run ${run!.id} \\(segment 9\\): the page at address ${page} is ${what}`),
        );
        assert.match(error.hint ?? '', /rebuild --index/);
        return true;
      });
    await find(0);
    await refused(second!.start_bytes, second!.start_bytes, 'damaged');
    await refused(third!.start_bytes + 1024, third!.start_bytes, 'missing');
  }));

test('the pages of all layers come in one statement, and only one that is needed must be sound', () =>
  withCatalog(async (catalog) => {
    // Each has block 7, and a block of its own; the newest wins.
    for (let source = 1; source <= 20; source += 1) {
      const map = new ExtentMap();
      map.put(7 * 512, 512, ExtentFlag.whole, source, 4096, 1);
      map.put((100 + source) * 512, 512, ExtentFlag.whole, source, 8192, 1);
      await store(catalog, 'forward', source, map);
    }
    const runs = (await coveringRuns(catalog.db, VOLUME, 'forward', 1, 20)).reverse();
    assert.equal(runs.length, 20);
    const page = new Uint8Array(40);
    await catalog.db.updateTable('pel_page').set({ page }).where('run_id', '=', runs[10]!.id).execute();
    let statements = 0;
    const db = catalog.db.withPlugin({
      transformQuery: ({ node }) => {
        statements += 1;
        return node;
      },
      transformResult: async ({ result }) => result,
    });
    const layers = new RunLayers(runs, new ExtentMap(), new PageCache(db, 1 << 20));
    const found = (block: number): Promise<PlaceCursor> => layers.find(block * 512, 512);
    assert.equal((await found(7)).source, 20);
    assert.equal(statements, 1);
    assert.equal((await found(115)).source, 15);
    assert.equal(statements, 1, 'what came along with the first is not asked for again');
    const named = new RegExp(`run ${runs[10]!.id} \\(segment 10\\): the page at address 0 is damaged`);
    await assert.rejects(found(105), named);
    await catalog.transaction((tx) => deleteRun(tx, VOLUME, 'forward', 10));
    await assert.rejects(found(105), RunGoneError);
    assert.equal((await found(7)).source, 20, 'what is above it is found all the same');
  }));

test('a cache that is smaller than the layers of a point still finds them', () =>
  withCatalog(async (catalog) => {
    const random = new SeededRandom(3);
    const maps: ExtentMap[] = [];
    for (let source = 1; source <= 40; source += 1) {
      maps.push(randomMap(random, 'forward', source));
      await store(catalog, 'forward', source, maps.at(-1)!);
    }
    const runs = (await coveringRuns(catalog.db, VOLUME, 'forward', 1, 40)).reverse();
    const layers = new RunLayers(runs, new ExtentMap(), new PageCache(catalog.db, 1));
    const expected = overlaid(maps.toReversed());
    const looks = Array.from({ length: 6 }, async () => {
      const start = random.below(BLOCKS) * 512;
      const end = start + 512 * (1 + random.below(900));
      const cursor = await layers.find(start, end - start);
      assert.deepEqual(blocks({ cursor: () => cursor }, start, end), blocks(expected, start, end));
    });
    await Promise.all(looks);
  }));
