// Marks by name.
import type { CatalogReader } from './catalog.ts';
import type { MarkRow } from './schema.ts';

export async function markByName(
  db: CatalogReader,
  volumeId: string,
  name: string,
): Promise<MarkRow | undefined> {
  return await db
    .selectFrom('mark')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('name', '=', name)
    .executeTakeFirst();
}
