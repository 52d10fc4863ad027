// Runs: the maps of segments (side `forward`) and backward objects (side `backward`), in PEL pages.
import type { ExtentMap } from '@midmirror/extent-map';
import { sql } from 'kysely';
import type { CatalogReader, CatalogTransaction } from './catalog.ts';
import { limits } from './limits.ts';
import { packPages, unpackPage } from './pel-page.ts';
import type { RunRow } from './schema.ts';

export type RunSide = 'forward' | 'backward';
export type StoredRun = { id: number } & Omit<RunRow, 'id'>;

/** Replaces a run of the same source, so that learning it twice is harmless. True: there was none. */
export async function insertRun(
  tx: CatalogTransaction,
  run: Omit<RunRow, 'id'>,
  map: ExtentMap,
): Promise<boolean> {
  const known = await deleteRun(tx, run.volume_id, run.side as RunSide, run.source);
  const { id } = await tx.insertInto('run').values(run).returning('id').executeTakeFirstOrThrow();
  const pages = packPages(map).map(({ startBytes, page }) => ({ run_id: id, start_bytes: startBytes, page }));
  for (let at = 0; at < pages.length; at += limits.pagesPerInsert)
    await tx
      .insertInto('pel_page')
      .values(pages.slice(at, at + limits.pagesPerInsert))
      .execute();
  return !known;
}

/** False: there was none. */
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
    .where('source', '=', source)
    .returning('id')
    .execute();
  for (const { id } of rows) await tx.deleteFrom('pel_page').where('run_id', '=', id).execute();
  return rows.length > 0;
}

/** Runs of one side in the order of time. */
export async function runsOf(db: CatalogReader, volumeId: string, side: RunSide): Promise<StoredRun[]> {
  return await db
    .selectFrom('run')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('side', '=', side)
    .orderBy('from_seq')
    .orderBy(sql`source`)
    .execute();
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
    .where('source', '=', source)
    .executeTakeFirst();
}

/** Puts a run's extents into `map`; `under`: only where nothing is yet. */
export async function loadRun(
  db: CatalogReader,
  runId: number,
  map: ExtentMap,
  under: boolean,
): Promise<void> {
  let after = -1;
  for (;;) {
    const pages = await db
      .selectFrom('pel_page')
      .select(['start_bytes', 'page'])
      .where('run_id', '=', runId)
      .where('start_bytes', '>', after)
      .orderBy('start_bytes')
      .limit(16)
      .execute();
    for (const { start_bytes, page } of pages) {
      unpackPage(page, map, under);
      after = start_bytes;
    }
    if (pages.length < 16) return;
  }
}
