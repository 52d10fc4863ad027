// 4 KiB random writes to the real appliance while its index merges, against the same while there is nothing to merge.
// What there is to merge is made in the catalogue alone: the runs of ten million writes of another volume, whose merged
// runs are taken away before each round.
import type { SeededRandom } from '@midmirror/basis';
import { type Catalog, openEmbeddedCatalog } from '@midmirror/catalog';
import { ExtentFlag } from '@midmirror/extent-map';
import { TIER_WIDTH } from '@midmirror/runs';
import { ApplianceProcess } from '../appliance/appliance-process.ts';
import type { Figures } from './figures.ts';
import { held } from './held.ts';
import { fill } from './index-fill.ts';
import { type Load, measure, median } from './measure.ts';

const DISK_BYTES = 2 ** 30;
const JOURNAL_BYTES = 4 * 2 ** 30;
/** Below the share at which a volume begins to sync for space. */
const RING_USED_SHARE = 0.6;
const BACKLOG_RUNS = 625;
const WRITES_PER_RUN = 16_000;
const ROUNDS = 5;
const SECONDS = 5;

const RANDOM: Load = {
  ...{ rw: 'randwrite', blockBytes: 4096, depth: 32, fsync: 0 },
  ...{ sizeBytes: DISK_BYTES, seconds: SECONDS },
};

interface View {
  journal: { bytesUsed: number; bytesMax: number };
}

export async function mergingFigures(figures: Figures, folder: string, random: SeededRandom): Promise<void> {
  const [busy, idle] = [`${folder}/busy`, `${folder}/idle`];
  for (const data of [busy, idle]) await onAppliance(data, toSteadyState);
  await inCatalogue(busy, async (catalog) => {
    const runs = { first: 1, last: BACKLOG_RUNS, writes: WRITES_PER_RUN, flags: ExtentFlag.whole };
    await fill(catalog, random, { volume: await backlogOf(catalog), side: 'forward', ...runs });
  });
  const rates: { busy: number[]; idle: number[] } = { busy: [], idle: [] };
  let mergedRuns = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    await inCatalogue(busy, takeMergedAway);
    await onAppliance(busy, async (appliance) => {
      const before = await mergedOf(appliance);
      rates.busy.push(await writeRate(appliance));
      const after = await mergedOf(appliance);
      if (after >= Math.floor(BACKLOG_RUNS / TIER_WIDTH))
        throw new Error('the merging ended before the writing');
      mergedRuns += after - before;
      await appliance.post('/volumes/bench/syncs', {});
    });
    await onAppliance(idle, async (appliance) => {
      rates.idle.push(await writeRate(appliance));
      await appliance.post('/volumes/bench/syncs', {});
    });
  }
  const [busyRate, idleRate] = [median(rates.busy), median(rates.idle)];
  figures.say('4 KiB random writes, depth 32, while the index merges', busyRate, 'IOPS');
  figures.say('  with nothing to merge', idleRate, 'IOPS');
  figures.say('  ratio', busyRate / idleRate, 'x', '>= 0.85, goal 0.95');
  figures.say(
    '  extents merged meanwhile, a second',
    (mergedRuns * TIER_WIDTH * WRITES_PER_RUN) / ROUNDS / SECONDS,
    '',
  );
}

async function onAppliance(data: string, act: (appliance: ApplianceProcess) => Promise<void>): Promise<void> {
  const starting = ApplianceProcess.start(data, { MIM_JOURNAL_BYTES: String(JOURNAL_BYTES) });
  await using appliance = await held(starting, (each) => each.stop());
  await act(appliance.it);
}

async function inCatalogue<T>(data: string, act: (catalog: Catalog) => Promise<T>): Promise<T> {
  const catalog = await openEmbeddedCatalog(`${data}/catalog.db`);
  try {
    return await act(catalog);
  } finally {
    await catalog.close();
  }
}

/** The segments that a round will need have been used before. */
async function toSteadyState(appliance: ApplianceProcess): Promise<void> {
  for (const name of ['bench', 'backlog']) await appliance.post('/volumes', { name, sizeBytes: DISK_BYTES });
  for (let used = 0, max = 1; used < RING_USED_SHARE * max; ) {
    await measure(appliance.uri('bench'), appliance.pid, {
      ...RANDOM,
      ...{ rw: 'write', blockBytes: 1 << 20, depth: 4, seconds: 1 },
    });
    ({ bytesUsed: used, bytesMax: max } = (await appliance.get<View>('/volumes/bench')).journal);
  }
  await appliance.post('/volumes/bench/syncs', {});
}

async function writeRate(appliance: ApplianceProcess): Promise<number> {
  return (await measure(appliance.uri('bench'), appliance.pid, RANDOM)).iops;
}

async function mergedOf(appliance: ApplianceProcess): Promise<number> {
  const { levels } = await appliance.get<{ levels: { level: number; runs: number }[] }>(
    '/volumes/backlog/index',
  );
  return levels.filter(({ level }) => level > 0).reduce((sum, { runs }) => sum + runs, 0);
}

async function backlogOf({ db }: Catalog): Promise<string> {
  const volume = db.selectFrom('volume').select('id').where('name', '=', 'backlog');
  return (await volume.executeTakeFirstOrThrow()).id;
}

async function takeMergedAway(catalog: Catalog): Promise<void> {
  const { db } = catalog;
  await db
    .deleteFrom('run')
    .where('volume_id', '=', await backlogOf(catalog))
    .where('level', '!=', 0)
    .execute();
  await db.deleteFrom('pel_page').where('run_id', 'not in', db.selectFrom('run').select('id')).execute();
}
