// `npm run bench:index [-- --writes 10000000 --snapshots 10000]`: what looking a point up in the index costs, over a
// catalogue that is filled with the maps of so many writes; beside it the walk through every segment's map one by
// one, in the same run. Ratios and medians; no bar is asserted here.
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { SeededRandom } from '@midmirror/basis';
import { type Catalog, insertRun, levelsOf, openEmbeddedCatalog, runsOf } from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { coveringRuns, PageCache, RunLayers } from '@midmirror/runs';
import { TierMerger } from '../../services/mapping-index/tier-merger.ts';
import { TreeVrmo } from '@midmirror/vrmo';
import { ROOT } from '../appliance/appliance-process.ts';
import { median } from './measure.ts';

/** 4 KiB writes in a segment of 64 MiB. */
const WRITES_PER_SEGMENT = 16_000;
const EXTENTS_PER_SNAPSHOT = 100;
const BLOCKS = 2 ** 24; // of 4 KiB: 64 GiB
const BLOCK = 4096;
const LOOKS = 40;
const RUNS_PER_TRANSACTION = 50;
const CACHE_BYTES = 32 << 20;

const { values } = parseArgs({
  options: {
    writes: { type: 'string', default: '10000000' },
    snapshots: { type: 'string', default: '10000' },
  },
});
const random = new SeededRandom(1);

function say(name: string, value: string, bar = ''): void {
  process.stdout.write(`${name.padEnd(66)} ${value.padStart(14)}  ${bar}\n`);
}

async function fill(
  catalog: Catalog,
  volume: string,
  side: string,
  runs: number,
  each: number,
): Promise<void> {
  const backward = side === 'backward' ? ExtentFlag.backward : 0;
  const mapOf = (source: number): ExtentMap => {
    const map = new ExtentMap();
    for (let i = 0; i < each; i += 1) {
      const offset = 4096 + i * 4200 - ((i * 4200) % 8);
      map.put(random.below(BLOCKS) * BLOCK, BLOCK, ExtentFlag.whole | backward, source, offset, i);
    }
    return map;
  };
  for (let source = 1; source <= runs; ) {
    await catalog.transaction(async (tx) => {
      for (let some = 0; some < RUNS_PER_TRANSACTION && source <= runs; some += 1, source += 1) {
        const map = mapOf(source);
        const run = {
          ...{ volume_id: volume, side, source, snapshot: backward ? source : 0 },
          ...{ from_seq: source, to_seq: source, extents: map.size, data_bytes: 0 },
        };
        await insertRun(tx, run, map);
      }
    });
  }
}

async function merged(catalog: Catalog, volume: string, side: 'forward' | 'backward'): Promise<number> {
  const merger = new TierMerger(catalog, (message) => process.stderr.write(`${message}\n`));
  const began = performance.now();
  merger.changed(volume, side);
  await merger.idle();
  await merger.stop();
  return (performance.now() - began) / 1000;
}

/** Milliseconds from nothing in memory to where the first 4 KiB lie, at points of one side. */
async function openAndLook(
  catalog: Catalog,
  volume: string,
  side: 'forward' | 'backward',
  point: () => number,
): Promise<{ ms: number; runs: number }> {
  const took: number[] = [];
  let most = 0;
  for (let look = 0; look < LOOKS; look += 1) {
    const cache = new PageCache(catalog.db, CACHE_BYTES);
    const at = point();
    const began = performance.now();
    const runs =
      side === 'forward'
        ? (await coveringRuns(catalog.db, volume, side, 1, at)).reverse()
        : await coveringRuns(catalog.db, volume, side, at, Number.MAX_SAFE_INTEGER);
    await new RunLayers(runs, new ExtentMap(), cache).find(random.below(BLOCKS) * BLOCK, BLOCK);
    took.push(performance.now() - began);
    most = Math.max(most, runs.length);
  }
  return { ms: median(took), runs: most };
}

/** Every segment's map, the newest first, until one has the address. */
async function chainWalk(catalog: Catalog, volume: string, last: number): Promise<number> {
  const took: number[] = [];
  for (let look = 0; look < 5; look += 1) {
    const cache = new PageCache(catalog.db, CACHE_BYTES);
    const began = performance.now();
    const runs = (await runsOf(catalog.db, volume, 'forward')).filter((run) => run.source <= last).reverse();
    await new RunLayers(runs, new ExtentMap(), cache).find(random.below(BLOCKS) * BLOCK, BLOCK);
    took.push(performance.now() - began);
  }
  return median(took);
}

async function forward(catalog: Catalog): Promise<void> {
  const segments = Math.ceil(Number(values.writes) / WRITES_PER_SEGMENT);
  await fill(catalog, 'small', 'forward', 1, 10_000);
  await fill(catalog, 'large', 'forward', segments, WRITES_PER_SEGMENT);
  const chain = await chainWalk(catalog, 'large', segments);
  const seconds = await merged(catalog, 'large', 'forward');
  const small = await openAndLook(catalog, 'small', 'forward', () => 1);
  const large = await openAndLook(catalog, 'large', 'forward', () => 1 + random.below(segments));
  say(
    `open + first look, ${values.writes} writes, any of ${segments} segments`,
    `${large.ms.toFixed(1)} ms`,
    '≤ 250, goal 20',
  );
  say('  the same to a window of 10,000 writes', (large.ms / small.ms).toFixed(1), '≤ 3, goal 1.2');
  say('  runs looked at, at most', String(large.runs));
  say('  the walk through all segments, to ours', `${(chain / large.ms).toFixed(1)} ×`);
  say('  merging all of it', `${seconds.toFixed(0)} s`);
  for (const { level, runs, extents, pageBytes } of await levelsOf(catalog.db, 'large'))
    say(
      `  level ${level}: ${runs} runs, ${extents} extents, bytes an extent`,
      (pageBytes / extents).toFixed(1),
      '≤ 16, goal 8',
    );
}

async function backward(catalog: Catalog): Promise<void> {
  const snapshots = Number(values.snapshots);
  await fill(catalog, 'old', 'backward', snapshots, EXTENTS_PER_SNAPSHOT);
  const seconds = await merged(catalog, 'old', 'backward');
  const oldest = await openAndLook(catalog, 'old', 'backward', () => 1);
  const any = await openAndLook(catalog, 'old', 'backward', () => 1 + random.below(snapshots));
  say(
    `open + first look at the oldest of ${snapshots} snapshots`,
    `${oldest.ms.toFixed(1)} ms`,
    '≤ 250, goal 20',
  );
  say('  at any of them', `${any.ms.toFixed(1)} ms`);
  say('  runs looked at, at most', String(Math.max(oldest.runs, any.runs)));
  say('  merging all of it', `${seconds.toFixed(0)} s`);
}

function tree(): void {
  const map = new ExtentMap();
  for (let i = 0; i < 1_000_000; i += 1)
    map.put(random.below(BLOCKS) * BLOCK, BLOCK, ExtentFlag.whole, 1, i, i);
  const vrmo = new TreeVrmo(map);
  const addresses = Float64Array.from({ length: 1_000_000 }, () => random.below(BLOCKS) * BLOCK);
  const cursor = vrmo.cursor(0);
  for (const address of addresses) cursor.seek(address);
  const began = performance.now();
  for (const address of addresses) cursor.seek(address);
  const seconds = (performance.now() - began) / 1000;
  say(
    `lookups a second in a tree of ${vrmo.extentCount} extents`,
    `${(1 / seconds).toFixed(2)} M`,
    '≥ 1.5, goal 5',
  );
}

const folder = mkdtempSync(`${ROOT}/.bench-`);
const catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
try {
  process.stdout.write(`${cpus()[0]!.model}, ${cpus().length} cores, Node ${process.version}\n`);
  tree();
  await forward(catalog);
  await backward(catalog);
  say('memory of this process at the end', `${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB`);
} finally {
  await catalog.close();
  rmSync(folder, { recursive: true, force: true });
}
