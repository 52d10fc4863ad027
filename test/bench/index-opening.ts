// Opening a mirror as its reader does: connect to the real appliance, read 4 KiB, disconnect. A window of many writes
// and the oldest of many snapshots beside a window of few. The windows are written by fio, 512 bytes each. Of the
// snapshots only the catalogue's part is made here, and each extent that they saved is one of zeroes: what the
// appliance does to find it is the same, the data of it is not read.
import type { SeededRandom } from '@midmirror/basis';
import { type Catalog, openEmbeddedCatalog, toNs } from '@midmirror/catalog';
import { ExtentFlag } from '@midmirror/extent-map';
import { connectNbd } from '@midmirror/nbd';
import { TIER_WIDTH } from '@midmirror/runs';
import { setTimeout as pause } from 'node:timers/promises';
import { ApplianceProcess, succeed } from '../appliance/appliance-process.ts';
import type { Figures } from './figures.ts';
import { held } from './held.ts';
import { BLOCK, BLOCKS, fill, mergeAll, randomAddress } from './index-fill.ts';
import { median } from './measure.ts';

const SMALL_WINDOW = 10_000;
const WRITE_BYTES = 512;
/** What a write of 512 bytes takes of the journal, and air: no sync for want of space. */
const JOURNAL_BYTES_PER_WRITE = 900;
const EXTENTS_PER_SNAPSHOT = 100;
const FEWEST_WRITES = 1000;
const LOOKS = 60;
const WARM_UP_LOOKS = 5;
const MERGED_MS_MAX = 20 * 60_000;
const POLL_MS = 2000;
const ROWS_PER_INSERT = 100;

/** A kind of points. */
interface Opened {
  volume: string;
  point: () => number;
}

export async function openingFigures(
  figures: Figures,
  folder: string,
  random: SeededRandom,
  writes: number,
  snapshots: number,
): Promise<void> {
  const env = {
    MIM_SEGMENT_BYTES: '36MiB',
    MIM_JOURNAL_BYTES: String(2 ** 30 + writes * JOURNAL_BYTES_PER_WRITE),
    // The smallest there is: pages come from the catalogue.
    MIM_INDEX_CACHE_BYTES: '1MiB',
  };
  await withHistory(folder, env, random, snapshots);
  await using started = await held(ApplianceProcess.start(folder, env), (each) => each.stop());
  const appliance = started.it;
  const began = performance.now();
  await written(appliance, 'small', SMALL_WINDOW);
  await written(appliance, 'large', writes);
  figures.say(`writing ${writes} times ${WRITE_BYTES} bytes by NBD`, (performance.now() - began) / 1000, 's');
  await merged(appliance, 'large');
  const kinds: Opened[] = [
    { volume: 'small', point: () => 1 + random.below(SMALL_WINDOW) },
    { volume: 'large', point: () => 1 + random.below(writes) },
    { volume: 'old', point: () => 1 },
    { volume: 'old', point: () => 1 + random.below(snapshots) },
  ];
  const [small, large, oldest, any] = await openAndRead(appliance, random, kinds);
  figures.say('open + first 4 KiB by NBD, window of 10,000 writes', small!, 'ms', '<= 250, goal 20');
  figures.say(`  window of ${writes} writes`, large!, 'ms', '<= 250, goal 20');
  figures.say('  to the small window', large! / small!, 'x', '<= 3, goal 1.2');
  figures.say(`  the oldest of ${snapshots} snapshots`, oldest!, 'ms', '<= 250, goal 20');
  figures.say('  to the small window', oldest! / small!, 'x', '<= 3, goal 1.2');
  figures.say(`  any of ${snapshots} snapshots`, any!, 'ms', '<= 250, goal 20');
}

/** A volume `old` with so many snapshots. */
async function withHistory(
  folder: string,
  env: Record<string, string>,
  random: SeededRandom,
  snapshots: number,
): Promise<void> {
  let id: string;
  {
    await using appliance = await held(ApplianceProcess.start(folder, env), (each) => each.stop());
    await written(appliance.it, 'old', snapshots + FEWEST_WRITES);
    await appliance.it.post('/volumes/old/syncs', { closeSnapshot: true });
    ({ id } = await appliance.it.get<{ id: string }>('/volumes/old'));
  }
  const catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
  await makeHistory(catalog, random, id, snapshots);
  await catalog.close();
}

/** A volume with so many writes at random in its window. */
async function written(appliance: ApplianceProcess, name: string, writes: number): Promise<void> {
  const policy = { journalWindowSeconds: 365 * 86_400, syncEverySeconds: 86_400 };
  const sizeBytes = BLOCKS * BLOCK;
  await appliance.post('/volumes', { name, sizeBytes, policy });
  const job = ['--name=fill', '--ioengine=nbd', `--uri=${appliance.uri(name)}`, '--rw=randwrite'];
  const amount = [`--bs=${WRITE_BYTES}`, `--size=${sizeBytes}`, `--io_size=${writes * WRITE_BYTES}`];
  await succeed('fio', [...job, ...amount, '--iodepth=64', '--norandommap', '--randrepeat=0']);
}

/** Until the runs of a volume's segments are merged as far as they will be. */
async function merged(appliance: ApplianceProcess, volume: string): Promise<void> {
  for (let waited = 0; waited < MERGED_MS_MAX; waited += POLL_MS) {
    const { levels } = await appliance.get<{ levels: { side: string; level: number; runs: number }[] }>(
      `/volumes/${volume}/index`,
    );
    const runs = levels.filter(({ side }) => side === 'forward').map((level) => level.runs);
    if (runs.every((count, i) => (runs[i + 1] ?? 0) === Math.floor(count / TIER_WIDTH))) return;
    await pause(POLL_MS);
  }
  throw new Error(`the runs of ${volume} are not merged after ${MERGED_MS_MAX} ms`);
}

/** Milliseconds of each kind; in turn, so that a slow minute hits all. */
async function openAndRead(
  appliance: ApplianceProcess,
  random: SeededRandom,
  kinds: readonly Opened[],
): Promise<number[]> {
  const took = kinds.map((): number[] => []);
  for (let look = -WARM_UP_LOOKS; look < LOOKS; look += 1) {
    for (const [i, { volume, point }] of kinds.entries()) {
      const uri = appliance.uri(`${volume}@seq:${point()}`);
      const began = performance.now();
      const client = await connectNbd(uri);
      await client.read(randomAddress(random), BLOCK);
      await client.close();
      if (look >= 0) took[i]!.push(performance.now() - began);
    }
  }
  return took.map(median);
}

/** In the catalogue of a volume whose writes are all on the MIM: a closed snapshot of each of its first writes. */
async function makeHistory(
  catalog: Catalog,
  random: SeededRandom,
  volume: string,
  snapshots: number,
): Promise<void> {
  const { db } = catalog;
  const newest = await db
    .selectFrom('snapshot')
    .selectAll()
    .where('volume_id', '=', volume)
    .orderBy('snapshot', 'desc')
    .executeTakeFirstOrThrow();
  // Its own snapshots make room: they are numbered after those that come before them now.
  for (const table of ['snapshot', 'run'] as const)
    await db.deleteFrom(table).where('volume_id', '=', volume).execute();
  await db
    .insertInto('snapshot')
    .values({ ...newest, snapshot: snapshots + 1 })
    .execute();
  const time = (seq: number): string =>
    toNs(BigInt(newest.opened_ns) - BigInt(snapshots + 1 - seq) * 10n ** 9n);
  for (let from = 1; from <= snapshots; from += ROWS_PER_INSERT) {
    const numbers = Array.from(
      { length: Math.min(ROWS_PER_INSERT, snapshots + 1 - from) },
      (_, i) => from + i,
    );
    const closed = numbers.map((seq) => ({
      ...{ volume_id: volume, snapshot: seq, seq, time_ns: time(seq), until_ns: time(seq + 1) },
      ...{ state: 'closed', opened_ns: time(seq), reason: 'schedule' },
    }));
    await db.insertInto('snapshot').values(closed).execute();
  }
  const extents = { first: 1, last: snapshots, writes: EXTENTS_PER_SNAPSHOT, flags: ExtentFlag.zero };
  await fill(catalog, random, { volume, side: 'backward', ...extents });
  await mergeAll(catalog, volume, 'backward');
}
