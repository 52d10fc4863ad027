// Volumes by id and name.
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogReader } from './catalog.ts';
import type { VolumeRow } from './schema.ts';

export async function volumeById(db: CatalogReader, id: string): Promise<VolumeRow> {
  const row = await db.selectFrom('volume').selectAll().where('id', '=', id).executeTakeFirst();
  if (row === undefined) throw new MidmirrorError('not-found', `no volume has the id ${id}`);
  return row;
}

/** Those that are whole and not on their way out, by name. */
export async function activeVolumes(db: CatalogReader): Promise<VolumeRow[]> {
  return await db.selectFrom('volume').selectAll().where('state', '=', 'active').orderBy('name').execute();
}

/** Undefined: there is none, or it is on its way in or out. */
export async function activeVolumeById(db: CatalogReader, id: string): Promise<VolumeRow | undefined> {
  return await db
    .selectFrom('volume')
    .selectAll()
    .where('id', '=', id)
    .where('state', '=', 'active')
    .executeTakeFirst();
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
