// Archives on removable media and the jobs that write and read them. Archives outlive their volume.
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogReader } from './catalog.ts';
import type { TapeArchiveRow, TapeJobRow, TapePartRow } from './schema.ts';

/** One archive by id or name. Throws `not-found`. */
export async function tapeArchiveOf(db: CatalogReader, idOrName: string): Promise<TapeArchiveRow> {
  const row = await db
    .selectFrom('tape_archive')
    .selectAll()
    .where((e) => e.or([e('id', '=', idOrName), e('name', '=', idOrName)]))
    .executeTakeFirst();
  if (row !== undefined) return row;
  throw new MidmirrorError('not-found', `there is no archive "${idOrName}"`, {
    hint: '`mim tape list` shows those there are, `mim tape import` finds those on media',
  });
}

/** Of volumes with this id or name, also of those that are gone; undefined: of all. The newest point first. */
export async function tapeArchivesOf(
  db: CatalogReader,
  volume: string | undefined,
  limit?: number,
): Promise<TapeArchiveRow[]> {
  let rows = db.selectFrom('tape_archive').selectAll();
  if (volume !== undefined)
    rows = rows.where((e) => e.or([e('volume_id', '=', volume), e('volume_name', '=', volume)]));
  rows = rows.orderBy('time_ns', 'desc').orderBy('id');
  return await (limit === undefined ? rows : rows.limit(limit)).execute();
}

/** In order, by archive. */
export async function tapePartsOf(
  db: CatalogReader,
  archives: readonly string[],
): Promise<Map<string, TapePartRow[]>> {
  const parts = new Map<string, TapePartRow[]>(archives.map((id) => [id, []]));
  for (let i = 0; i < archives.length; i += 500) {
    const some = archives.slice(i, i + 500);
    const rows = db.selectFrom('tape_part').selectAll().where('archive_id', 'in', some);
    for (const row of await rows.orderBy('archive_id').orderBy('part').execute())
      parts.get(row.archive_id)!.push(row);
  }
  return parts;
}

/** Throws `not-found`. */
export async function tapeJobOf(db: CatalogReader, id: string): Promise<TapeJobRow> {
  const row = await db.selectFrom('tape_job').selectAll().where('id', '=', id).executeTakeFirst();
  if (row !== undefined) return row;
  throw new MidmirrorError('not-found', `there is no tape job ${id}`, {
    hint: '`mim tape jobs` shows those there are',
  });
}

/** The pins of a job, which live as long as it has not ended: of its own point, and of that of the parent. */
export function tapeJobPinIds(jobId: string): { point: string; parent: string } {
  return { point: `tape-job-${jobId}`, parent: `tape-job-${jobId}-parent` };
}

/** The pin of the point of a volume's newest archive of a cause: the next difference is one to it. */
export function tapeBasePinId(volumeId: string, cause: string): string {
  return `${BASE}${cause}-${volumeId}`;
}

/** Kept for the next tape, whenever that comes: nobody is at work with it. */
export function isTapeBasePin(id: string): boolean {
  return id.startsWith(BASE);
}

const BASE = 'tape-base-';
