// Snapshots of a volume, one by one or in pages: there may be many thousands, and most questions need a few.
import type { CatalogReader } from './catalog.ts';
import type { SnapshotRow } from './schema.ts';
import { toNs } from './time-column.ts';

/** Open and closed, oldest first: all of them, for who goes through the whole history. */
export async function snapshotsOf(db: CatalogReader, volumeId: string): Promise<SnapshotRow[]> {
  return await of(db, volumeId).orderBy('seq').execute();
}

/** The one that syncs add to: the newest, unless that is closed. */
export async function openSnapshotOf(db: CatalogReader, volumeId: string): Promise<SnapshotRow | undefined> {
  const newest = await newestSnapshotOf(db, volumeId);
  return newest?.state === 'open' ? newest : undefined;
}

export async function newestSnapshotOf(
  db: CatalogReader,
  volumeId: string,
): Promise<SnapshotRow | undefined> {
  return await of(db, volumeId).orderBy('snapshot', 'desc').limit(1).executeTakeFirst();
}

export async function snapshotByNumber(
  db: CatalogReader,
  volumeId: string,
  snapshot: number,
): Promise<SnapshotRow | undefined> {
  return await of(db, volumeId).where('snapshot', '=', snapshot).executeTakeFirst();
}

/** The snapshot of a point. */
export async function snapshotOfSeq(
  db: CatalogReader,
  volumeId: string,
  seq: number,
): Promise<SnapshotRow | undefined> {
  return await of(db, volumeId).where('seq', '=', seq).executeTakeFirst();
}

export async function oldestSnapshotOf(
  db: CatalogReader,
  volumeId: string,
): Promise<SnapshotRow | undefined> {
  return await of(db, volumeId).orderBy('seq').limit(1).executeTakeFirst();
}

/** The last at or before a time, and the first after it. */
export async function snapshotsAround(
  db: CatalogReader,
  volumeId: string,
  timeNs: bigint,
): Promise<{ before: SnapshotRow | undefined; after: SnapshotRow | undefined }> {
  // Before the epoch nothing has been kept, and its text would not sort.
  const time = toNs(timeNs < 0n ? 0n : timeNs);
  const before = of(db, volumeId).where('time_ns', '<=', time).orderBy('time_ns', 'desc');
  const after = of(db, volumeId).where('time_ns', '>', time).orderBy('time_ns');
  return {
    before: await before.limit(1).executeTakeFirst(),
    after: await after.limit(1).executeTakeFirst(),
  };
}

/** The nearest before, or after, a write. */
export async function snapshotOutside(
  db: CatalogReader,
  volumeId: string,
  side: 'before' | 'after',
  seq: number,
): Promise<SnapshotRow | undefined> {
  const rows =
    side === 'before'
      ? of(db, volumeId).where('seq', '<', seq).orderBy('seq', 'desc')
      : of(db, volumeId).where('seq', '>', seq).orderBy('seq');
  return await rows.limit(1).executeTakeFirst();
}

/** At most so many with numbers below `below`, the newest first. */
export async function snapshotsBelow(
  db: CatalogReader,
  volumeId: string,
  below: number,
  count: number,
): Promise<SnapshotRow[]> {
  return await of(db, volumeId)
    .where('snapshot', '<', below)
    .orderBy('snapshot', 'desc')
    .limit(count)
    .execute();
}

/** The next newer than a number. */
export async function snapshotAbove(
  db: CatalogReader,
  volumeId: string,
  above: number,
): Promise<SnapshotRow | undefined> {
  return await of(db, volumeId).where('snapshot', '>', above).orderBy('snapshot').limit(1).executeTakeFirst();
}

/** How many there are with numbers up to `upTo`, and the newest of them; 0: none. Numbers are never given again. */
export async function snapshotTally(
  db: CatalogReader,
  volumeId: string,
  upTo: number,
): Promise<{ count: number; newest: number }> {
  const row = await db
    .selectFrom('snapshot')
    .select((e) => [e.fn.countAll().as('count'), e.fn.max('snapshot').as('newest')])
    .where('volume_id', '=', volumeId)
    .where('snapshot', '<=', upTo)
    .executeTakeFirstOrThrow();
  return { count: Number(row.count), newest: row.newest ?? 0 };
}

function of(db: CatalogReader, volumeId: string) {
  return db.selectFrom('snapshot').selectAll().where('volume_id', '=', volumeId);
}
