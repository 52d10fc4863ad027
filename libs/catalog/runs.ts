// Runs: the maps of segments (side `forward`) and backward objects (side `backward`), in PEL pages, and the merged
// runs of higher levels over them. A merged run never outlives a change of what it was made from.
import { MidmirrorError } from '@midmirror/basis';
import type { ExtentMap } from '@midmirror/extent-map';
import { sql } from 'kysely';
import type { CatalogReader, CatalogTransaction } from './catalog.ts';
import { limits } from './limits.ts';
import { type PackedPage, type PelPage, packPages, putPage, unpackPage } from './pel-page.ts';
import type { RunRow } from './schema.ts';

export type RunSide = 'forward' | 'backward';
export type StoredRun = { id: number } & Omit<RunRow, 'id'>;
/** A run of level 0, as who makes it tells of it. */
export type NewRun = Pick<
  StoredRun,
  'volume_id' | 'side' | 'source' | 'snapshot' | 'from_seq' | 'to_seq' | 'extents' | 'data_bytes'
>;

/** A run that was looked for has been dropped, recycled or replaced: the catalogue knows which took its place. */
export class RunGoneError extends MidmirrorError {
  constructor(run: StoredRun) {
    super('unavailable', `index run ${run.id} has gone from the catalogue`, { hint: 'try again' });
  }
}

/** Level of a merged run whose pages are not all there yet. */
export const BUILDING = -1;

/** Replaces a run of the same source, so that learning it twice is harmless. True: there was none. */
export async function insertRun(tx: CatalogTransaction, run: NewRun, map: ExtentMap): Promise<boolean> {
  const known = await deleteRun(tx, run.volume_id, run.side as RunSide, run.source);
  if (run.side === 'backward') await deleteMergedOver(tx, run.volume_id, 'backward', run.snapshot);
  else if (!known) await deleteMergedOver(tx, run.volume_id, 'forward', run.source);
  const pages = packPages(map);
  const { id } = await tx
    .insertInto('run')
    .values({
      ...run,
      level: 0,
      first_source: run.source,
      last_snapshot: run.snapshot,
      page_bytes: pages.reduce((sum, { page }) => sum + page.length, 0),
    })
    .returning('id')
    .executeTakeFirstOrThrow();
  await insertPages(tx, id, pages);
  return !known;
}

export async function insertPages(db: CatalogReader, runId: number, pages: PackedPage[]): Promise<void> {
  const rows = pages.map(({ startBytes, page }) => ({ run_id: runId, start_bytes: startBytes, page }));
  for (let at = 0; at < rows.length; at += limits.pagesPerInsert)
    await db
      .insertInto('pel_page')
      .values(rows.slice(at, at + limits.pagesPerInsert))
      .execute();
}

/** Of level 0, with the merged ones that were made from it. False: there was none. */
export async function deleteRun(
  tx: CatalogTransaction,
  volumeId: string,
  side: RunSide,
  source: number,
): Promise<boolean> {
  const rows = await tx
    .deleteFrom('run')
    .where('volume_id', '=', volumeId)
    .where('side', '=', side)
    .where('level', '=', 0)
    .where('source', '=', source)
    .returning(['id', 'snapshot'])
    .execute();
  for (const { id, snapshot } of rows) {
    await deletePages(tx, id);
    if (side === 'backward') await deleteMergedOver(tx, volumeId, side, snapshot);
  }
  return rows.length > 0;
}

/** Segments up to this one have gone: their runs, and the merged runs that hold nothing else. Their numbers. */
export async function deleteForwardRuns(
  tx: CatalogTransaction,
  volumeId: string,
  lastSegment: number,
): Promise<number[]> {
  const gone = await tx
    .deleteFrom('run')
    .where('volume_id', '=', volumeId)
    .where('side', '=', 'forward')
    .where('source', '<=', lastSegment)
    .where('level', '>=', 0)
    .returning(['id', 'level', 'source'])
    .execute();
  for (const { id } of gone) await deletePages(tx, id);
  return gone.filter(({ level }) => level === 0).map(({ source }) => source);
}

/** Any run by its id, with its pages. */
export async function deleteRunById(db: CatalogReader, runId: number): Promise<void> {
  await db.deleteFrom('run').where('id', '=', runId).execute();
  await deletePages(db, runId);
}

/** Runs of level 0 of one side in the order of time. */
export async function runsOf(db: CatalogReader, volumeId: string, side: RunSide): Promise<StoredRun[]> {
  return await inOrder(db, volumeId, side).where('level', '=', 0).execute();
}

/** What a snapshot has saved: its own runs, of level 0, in the order of time. */
export async function runsOfSnapshot(
  db: CatalogReader,
  volumeId: string,
  snapshot: number,
): Promise<StoredRun[]> {
  return await inOrder(db, volumeId, 'backward')
    .where('level', '=', 0)
    .where('snapshot', '=', snapshot)
    .execute();
}

/** Runs of all levels of one side that are whole, in the order of time. */
export async function leveledRunsOf(
  db: CatalogReader,
  volumeId: string,
  side: RunSide,
): Promise<StoredRun[]> {
  return await inOrder(db, volumeId, side).where('level', '>=', 0).execute();
}

/** Whole runs of a level within units (segments forward, snapshots backward), in their order. */
export async function runsWithin(
  db: CatalogReader,
  volumeId: string,
  side: RunSide,
  units: { first: number; last: number },
  level: number,
): Promise<StoredRun[]> {
  const [from, to] = unitColumns(side);
  return await db
    .selectFrom('run')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('side', '=', side)
    .where(from, '>=', units.first)
    .where(to, '<=', units.last)
    .where('level', '=', level)
    .orderBy(from)
    .orderBy('source')
    .execute();
}

/** What says which units a run covers: its first, and its last. */
export function unitColumns(side: RunSide): ['first_source', 'source'] | ['snapshot', 'last_snapshot'] {
  return side === 'forward' ? ['first_source', 'source'] : ['snapshot', 'last_snapshot'];
}

/**
 * Of each level the whole runs behind the last run of the next level: all that may be merged while history only grows
 * at its end. The lowest level first, each in the order of time.
 */
export async function runsAtEnd(db: CatalogReader, volumeId: string, side: RunSide): Promise<StoredRun[]> {
  const [by, last] = unitColumns(side);
  const of = (level: number) =>
    db
      .selectFrom('run')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .where('side', '=', side)
      .where('level', '=', level);
  const found: StoredRun[] = [];
  for (let level = 0; ; level += 1) {
    const above = await of(level + 1)
      .orderBy(by, 'desc')
      .limit(1)
      .executeTakeFirst();
    const behind = above === undefined ? of(level) : of(level).where(by, '>', above[last]);
    found.push(...(await behind.orderBy(by).orderBy('source').execute()));
    if (above === undefined) return found;
  }
}

/**
 * The run of the highest level that holds the newest snapshot at or before `last`, and nothing beyond `first` and
 * `last`; of level 0 all runs of that snapshot. Empty: no snapshot there has a run.
 */
export async function newestRunsWithin(
  db: CatalogReader,
  volumeId: string,
  { first, last }: { first: number; last: number },
): Promise<StoredRun[]> {
  const lastOf = (level: number, upTo: number) =>
    db
      .selectFrom('run')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .where('side', '=', 'backward')
      .where('level', '=', level)
      .where('snapshot', '<=', upTo)
      .orderBy('snapshot', 'desc')
      .limit(1)
      .executeTakeFirst();
  const newest = await lastOf(0, last);
  if (newest === undefined || newest.snapshot < first) return [];
  let chosen = await runsOfSnapshot(db, volumeId, newest.snapshot);
  for (let level = 1; ; level += 1) {
    const run = await lastOf(level, newest.snapshot);
    const holds = run !== undefined && run.last_snapshot >= newest.snapshot;
    // Those of higher levels hold all that this one does.
    if (!holds || run.last_snapshot > last || run.snapshot < first) return chosen;
    chosen = [run];
  }
}

function inOrder(db: CatalogReader, volumeId: string, side: RunSide) {
  return db
    .selectFrom('run')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('side', '=', side)
    .orderBy('snapshot')
    .orderBy('from_seq')
    .orderBy(sql`source`);
}

/** Segments from `first` on that have a run. */
export async function segmentsFrom(db: CatalogReader, volumeId: string, first: number): Promise<number[]> {
  const rows = await db
    .selectFrom('run')
    .select('source')
    .where('volume_id', '=', volumeId)
    .where('side', '=', 'forward')
    .where('level', '=', 0)
    .where('source', '>=', first)
    .execute();
  return rows.map(({ source }) => source);
}

/** The run of one segment or object; undefined: the catalogue knows none. */
export async function runOf(
  db: CatalogReader,
  volumeId: string,
  side: RunSide,
  source: number,
): Promise<StoredRun | undefined> {
  return await db
    .selectFrom('run')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('side', '=', side)
    .where('level', '=', 0)
    .where('source', '=', source)
    .executeTakeFirst();
}

/** Puts a run's extents into `map`; `under`: only where nothing is yet. Throws `corrupt` as `pageAt`. */
export async function loadRun(
  db: CatalogReader,
  run: StoredRun,
  map: ExtentMap,
  under: boolean,
): Promise<void> {
  for await (const page of pagesOf(db, run)) putPage(page, map, under);
}

/** All pages of a run, in order, a few of them in memory at a time. */
export async function* pagesOf(db: CatalogReader, run: StoredRun): AsyncGenerator<PelPage> {
  if (run.extents === 0) return;
  for (let at = 0; at !== Number.POSITIVE_INFINITY; ) {
    const rows = await db
      .selectFrom('pel_page')
      .select(['start_bytes', 'page'])
      .where('run_id', '=', run.id)
      .where('start_bytes', '>=', at)
      .orderBy('start_bytes')
      .limit(limits.pagesPerRead)
      .execute();
    if (rows.length === 0) throw await lacking(db, run, at);
    for (const { start_bytes, page } of rows) {
      if (start_bytes !== at) throw await lacking(db, run, at);
      const unpacked = unpackPage(start_bytes, page);
      if (unpacked === null) throw damaged(run, start_bytes);
      yield unpacked;
      at = unpacked.endBytes;
    }
  }
}

/** The page that answers for an address. Throws RunGoneError, or `corrupt` for a bad page. */
export async function pageAt(db: CatalogReader, run: StoredRun, address: number): Promise<PelPage> {
  const row = await db
    .selectFrom('pel_page')
    .select(['start_bytes', 'page'])
    .where('run_id', '=', run.id)
    .where('start_bytes', '<=', address)
    .orderBy('start_bytes', 'desc')
    .limit(1)
    .executeTakeFirst();
  if (row === undefined) throw await lacking(db, run, 0);
  const page = unpackPage(row.start_bytes, row.page);
  if (page === null) throw damaged(run, row.start_bytes);
  if (address >= page.endBytes) throw await lacking(db, run, page.endBytes);
  return page;
}

/**
 * The pages of several runs that answer for one address, in one statement; null where a page is missing or damaged:
 * `pageAt` tells which.
 */
export async function pagesAt(
  db: CatalogReader,
  runs: readonly StoredRun[],
  address: number,
): Promise<(PelPage | null)[]> {
  const ids = sql.join(runs.map((run) => run.id));
  const { rows } = await sql<{ id: number; start_bytes: number; page: Uint8Array }>`
    select run.id, here.start_bytes, here.page from run join pel_page as here
      on here.run_id = run.id and here.start_bytes = (
        select max(before.start_bytes) from pel_page as before
        where before.run_id = run.id and before.start_bytes <= ${address})
    where run.id in (${ids})`.execute(db);
  const found = new Map(rows.map((row) => [row.id, row]));
  return runs.map(({ id }) => {
    const row = found.get(id);
    const page = row === undefined ? null : unpackPage(row.start_bytes, row.page);
    return page !== null && address < page.endBytes ? page : null;
  });
}

/** How many runs there are, of all volumes, by side and level. */
export async function runCounts(
  db: CatalogReader,
): Promise<{ volumeId: string; side: string; level: number; runs: number }[]> {
  const rows = await db
    .selectFrom('run')
    .select((e) => ['volume_id', 'side', 'level', e.fn.countAll<number>().as('runs')])
    .where('level', '>=', 0)
    .groupBy(['volume_id', 'side', 'level'])
    .execute();
  return rows.map(({ volume_id, side, level, runs }) => ({
    volumeId: volume_id,
    side,
    level,
    runs: Number(runs),
  }));
}

export interface LevelSummary {
  side: RunSide;
  level: number;
  runs: number;
  extents: number;
  pages: number;
  pageBytes: number;
}

/** What the runs of a volume are and take, by side and level. */
export async function levelsOf(db: CatalogReader, volumeId: string): Promise<LevelSummary[]> {
  const rows = await db
    .selectFrom('run')
    .select((e) => [
      'side',
      'level',
      e.fn.countAll<number>().as('runs'),
      e.fn.sum<number>('extents').as('extents'),
      e.fn.sum<number>('page_bytes').as('pageBytes'),
    ])
    .where('volume_id', '=', volumeId)
    .where('level', '>=', 0)
    .groupBy(['side', 'level'])
    .orderBy('side', 'desc')
    .orderBy('level')
    .execute();
  const pages = await db
    .selectFrom('pel_page')
    .innerJoin('run', 'run.id', 'pel_page.run_id')
    .select((e) => ['side', 'level', e.fn.countAll<number>().as('pages')])
    .where('volume_id', '=', volumeId)
    .groupBy(['side', 'level'])
    .execute();
  return rows.map(({ side, level, runs, extents, pageBytes }) => ({
    side: side as RunSide,
    level,
    runs: Number(runs),
    extents: Number(extents),
    pages: Number(pages.find((row) => row.side === side && row.level === level)?.pages ?? 0),
    pageBytes: Number(pageBytes),
  }));
}

async function deletePages(db: CatalogReader, runId: number): Promise<void> {
  await db.deleteFrom('pel_page').where('run_id', '=', runId).execute();
}

/** A level has at most one run over a unit (segment or snapshot), and none where the level below has none. */
async function deleteMergedOver(
  tx: CatalogTransaction,
  volumeId: string,
  side: RunSide,
  unit: number,
): Promise<void> {
  const [from, to] = unitColumns(side);
  const over = async (level: number): Promise<boolean> => {
    const run = await tx
      .selectFrom('run')
      .select(['id', to])
      .where('volume_id', '=', volumeId)
      .where('side', '=', side)
      .where('level', '=', level)
      .where(from, '<=', unit)
      .orderBy(from, 'desc')
      .limit(1)
      .executeTakeFirst();
    if (run === undefined || run[to] < unit) return false;
    await deleteRunById(tx, run.id);
    return true;
  };
  await over(BUILDING);
  for (let level = 1; await over(level); level += 1);
}

async function lacking(db: CatalogReader, run: StoredRun, at: number): Promise<MidmirrorError> {
  const present = await db.selectFrom('run').select('id').where('id', '=', run.id).executeTakeFirst();
  if (present === undefined) return new RunGoneError(run);
  return badPage(run, at, 'missing');
}

function damaged(run: StoredRun, at: number): MidmirrorError {
  return badPage(run, at, 'damaged');
}

function badPage(run: StoredRun, at: number, what: string): MidmirrorError {
  const kind = run.side === 'forward' ? 'segment' : 'object';
  const of =
    run.level === 0
      ? `${kind} ${run.source}`
      : `${kind}s ${run.first_source} to ${run.source}, level ${run.level}`;
  return new MidmirrorError('corrupt', `index run ${run.id} (${of}): the page at address ${at} is ${what}`, {
    hint: 'the data is not touched: stop the appliance and make the index again with `mim rebuild --index`',
  });
}
