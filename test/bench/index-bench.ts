// `npm run bench:index [-- --writes 10000000 --snapshots 10000 --only trees --out index-bench.json]`: what looking a
// point up costs, beside what one would do without the index, in one run. The index alone first, over a catalogue that
// is filled with the maps of so many writes; then through the real appliance. No bar is asserted here.
import { parseArgs } from 'node:util';
import { SeededRandom } from '@midmirror/basis';
import {
  type Catalog,
  coveringRuns,
  levelsOf,
  openEmbeddedCatalog,
  type RunSide,
  runsOf,
} from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { PageCache, RunLayers } from '@midmirror/runs';
import { installTools } from '../tools.ts';
import { Figures } from './figures.ts';
import { benchFolder } from './held.ts';
import { mergingFigures } from './index-merging.ts';
import { openingFigures } from './index-opening.ts';
import { chainWalk, rowTable, SortedArray } from './index-peers.ts';
import { BLOCK, fill, mergeAll, randomAddress } from './index-fill.ts';
import { treeFigures } from './index-trees.ts';
import { median } from './measure.ts';
import { partsOf } from './parts.ts';

/** 4 KiB writes in a segment of 64 MiB. */
const WRITES_PER_SEGMENT = 16_000;
const SMALL_WINDOW = 10_000;
const EXTENTS_PER_SNAPSHOT = 100;
const LOOKS = 60;
const CACHE_BYTES = 32 << 20;
const PARTS = ['trees', 'windows', 'history', 'opening', 'merging'] as const;

const { values } = parseArgs({
  options: {
    writes: { type: 'string', default: '10000000' },
    snapshots: { type: 'string', default: '10000' },
    only: { type: 'string' },
    out: { type: 'string', default: 'index-bench.json' },
  },
});
const writes = Number(values.writes);
const snapshots = Number(values.snapshots);
const random = new SeededRandom(1);

/** A window or a history, and a point of it. */
interface Lookup {
  volume: string;
  side: RunSide;
  point: () => number;
}

/** Milliseconds from nothing in memory to where the first 4 KiB lie; of several kinds of points, in turn. */
async function openAndLook(
  catalog: Catalog,
  lookups: readonly Lookup[],
): Promise<{ ms: number; runs: number }[]> {
  const took = lookups.map((): number[] => []);
  const most = lookups.map(() => 0);
  for (let look = 0; look < LOOKS; look += 1) {
    for (const [i, { volume, side, point }] of lookups.entries()) {
      const cache = new PageCache(catalog.db, CACHE_BYTES);
      const at = point();
      const [first, last] = side === 'forward' ? [1, at] : [at, Number.MAX_SAFE_INTEGER];
      const began = performance.now();
      const runs = await coveringRuns(catalog.db, volume, side, first, last);
      if (side === 'forward') runs.reverse();
      await new RunLayers(runs, new ExtentMap(), cache).find(randomAddress(random), BLOCK);
      took[i]!.push(performance.now() - began);
      most[i] = Math.max(most[i]!, runs.length);
    }
  }
  return took.map((some, i) => ({ ms: median(some), runs: most[i]! }));
}

async function windows(figures: Figures, catalog: Catalog, folder: string): Promise<void> {
  const segments = Math.ceil(writes / WRITES_PER_SEGMENT);
  const filling = { side: 'forward' as const, first: 1, flags: ExtentFlag.whole };
  await fill(catalog, random, { ...filling, volume: 'small', last: 1, writes: SMALL_WINDOW });
  await fill(catalog, random, { ...filling, volume: 'large', last: segments, writes: WRITES_PER_SEGMENT });
  const seconds = await mergeAll(catalog, 'large', 'forward');
  const runs = await runsOf(catalog.db, 'large', 'forward');
  const chain = await chainWalk(catalog, random, runs, CACHE_BYTES);
  const [small, large] = await openAndLook(catalog, [
    { volume: 'small', side: 'forward', point: () => 1 },
    { volume: 'large', side: 'forward', point: () => 1 + random.below(segments) },
  ]);
  const name = `open + first look, index alone, ${writes} writes, any of ${segments} segments`;
  figures.say(name, large!.ms, 'ms', '<= 250, goal 20');
  figures.say('  to a window of 10,000 writes', large!.ms / small!.ms, 'x', '<= 3, goal 1.2');
  figures.say('  runs looked at, at most', large!.runs, '');
  figures.say('  merging all of it', seconds, 's');
  for (const { level, runs: count, extents, pageBytes } of await levelsOf(catalog.db, 'large'))
    figures.say(
      `  level ${level}, ${count} runs: catalogue bytes an extent`,
      pageBytes / extents,
      'B',
      '<= 16, goal 8',
    );
  figures.say('peer, a walk through the segments: open + first look', chain, 'ms');
  figures.say('  to ours', chain / large!.ms, 'x');
  const began = performance.now();
  const array = await SortedArray.open(catalog, runs);
  const arrayMs = performance.now() - began;
  figures.say(`peer, a sorted array of ${array.size} extents: open + first look`, arrayMs, 'ms');
  figures.say('  to ours', arrayMs / large!.ms, 'x');
  figures.say('  memory', array.memoryBytes / 2 ** 20, 'MiB');
  figures.say('  lookups', array.lookupsPerSecond(random) / 1e6, 'M/s');
  const table = await rowTable(`${folder}/rows.db`, random, writes);
  figures.say(
    `peer, a table with a row for each of ${writes} extents: open + first look`,
    table.openMs,
    'ms',
  );
  figures.say('  to ours', table.openMs / large!.ms, 'x');
  figures.say('  database bytes an extent', table.bytesPerExtent, 'B');
  figures.say('  lookups', table.lookupsPerSecond / 1e6, 'M/s');
  figures.say('  filling it in the order of its key', table.fillSeconds, 's');
}

async function history(figures: Figures, catalog: Catalog): Promise<void> {
  const extents = { first: 1, last: snapshots, writes: EXTENTS_PER_SNAPSHOT, flags: ExtentFlag.whole };
  await fill(catalog, random, { volume: 'old', side: 'backward', ...extents });
  const seconds = await mergeAll(catalog, 'old', 'backward');
  const [oldest, any] = await openAndLook(catalog, [
    { volume: 'old', side: 'backward', point: () => 1 },
    { volume: 'old', side: 'backward', point: () => 1 + random.below(snapshots) },
  ]);
  const name = `open + first look, index alone, the oldest of ${snapshots} snapshots`;
  figures.say(name, oldest!.ms, 'ms', '<= 250, goal 20');
  figures.say('  at any of them', any!.ms, 'ms');
  figures.say('  runs looked at, at most', Math.max(oldest!.runs, any!.runs), '');
  figures.say('  merging all of it', seconds, 's');
}

async function main(): Promise<void> {
  const asked = partsOf(PARTS, values.only);
  installTools();
  await using folder = await benchFolder();
  const figures = new Figures();
  if (asked.has('trees')) treeFigures(figures, random);
  const catalog = await openEmbeddedCatalog(`${folder.it}/catalog.db`);
  if (asked.has('windows')) await windows(figures, catalog, folder.it);
  if (asked.has('history')) await history(figures, catalog);
  await catalog.close();
  if (asked.has('opening')) await openingFigures(figures, `${folder.it}/opening`, random, writes, snapshots);
  if (asked.has('merging')) await mergingFigures(figures, folder.it, random);
  figures.write(values.out);
}

await main();
