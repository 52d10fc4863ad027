// Volumes by id and name, and their snapshots.
import { MidmirrorError } from '@midmirror/basis';
import { sql } from 'kysely';
import type { CatalogReader } from './catalog.ts';
import { limits } from './limits.ts';
import type { SnapshotRow, VolumeRow } from './schema.ts';
import { toNs } from './time-column.ts';

export async function volumeById(db: CatalogReader, id: string): Promise<VolumeRow> {
  const row = await db.selectFrom('volume').selectAll().where('id', '=', id).executeTakeFirst();
  if (row === undefined) throw new MidmirrorError('not-found', `no volume has the id ${id}`);
  return row;
}

/** Throws `not-found` naming the volumes there are. */
export async function volumeByName(db: CatalogReader, name: string): Promise<VolumeRow> {
  const row = await db.selectFrom('volume').selectAll().where('name', '=', name).executeTakeFirst();
  if (row !== undefined && row.state === 'active') return row;
  const others = await db
    .selectFrom('volume')
    .select('name')
    .where('state', '=', 'active')
    .orderBy('name')
    .limit(20)
    .execute();
  const hint =
    others.length === 0
      ? 'there is no volume yet'
      : `there are: ${others.map((other) => other.name).join(', ')}`;
  throw new MidmirrorError('not-found', `there is no volume "${name}"`, { hint });
}

/** Open and closed, oldest first. */
export async function snapshotsOf(db: CatalogReader, volumeId: string): Promise<SnapshotRow[]> {
  return await db
    .selectFrom('snapshot')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .orderBy('seq')
    .execute();
}

/** Which snapshots somebody looks for: that of a write, a number or a mark, or the two around a time. */
export interface SnapshotsAsked {
  seq?: number;
  snapshot?: number;
  mark?: string;
  timeNs?: bigint;
}

/** Those asked for, the oldest and the newest few, oldest first: as many however many there are. */
export async function snapshotsNear(
  db: CatalogReader,
  volumeId: string,
  asked: SnapshotsAsked,
): Promise<SnapshotRow[]> {
  const { seq, snapshot, mark, timeNs } = asked;
  const here = sql`from snapshot where volume_id = ${volumeId}`;
  const wanted = [
    sql`select min(snapshot) ${here}`,
    sql`select snapshot from (
      select snapshot ${here} order by snapshot desc limit ${limits.newestSnapshots}) as newest`,
  ];
  if (snapshot !== undefined) wanted.push(sql`select cast(${snapshot} as bigint)`);
  if (seq !== undefined) wanted.push(sql`select snapshot ${here} and seq = ${seq}`);
  if (mark !== undefined)
    wanted.push(sql`select snapshot ${here} and seq = (
      select seq from mark where volume_id = ${volumeId} and name = ${mark})`);
  if (timeNs !== undefined) {
    const time = toNs(timeNs);
    wanted.push(
      sql`select max(snapshot) ${here} and time_ns = (select max(time_ns) ${here} and time_ns <= ${time})`,
      sql`select min(snapshot) ${here} and time_ns = (select min(time_ns) ${here} and time_ns > ${time})`,
    );
  }
  const { rows } = await sql<SnapshotRow>`
    select * ${here} and snapshot in (${sql.join(wanted, sql` union `)}) order by seq, snapshot`.execute(db);
  return rows;
}
