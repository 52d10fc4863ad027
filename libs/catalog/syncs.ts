// Syncs: at most one of a volume is under way, and it is the last.
import type { CatalogReader } from './catalog.ts';
import type { SyncRow } from './schema.ts';

/** The one that is planned or prepared; undefined: none is under way. */
export async function syncUnderWay(db: CatalogReader, volumeId: string): Promise<SyncRow | undefined> {
  const last = await db
    .selectFrom('sync')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .orderBy('sync_id', 'desc')
    .limit(1)
    .executeTakeFirst();
  return last?.state === 'applied' ? undefined : last;
}
