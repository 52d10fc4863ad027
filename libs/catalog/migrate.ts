// Brings a database to the newest migration, or refuses one that is not this Midmirror's.
import { MidmirrorError } from '@midmirror/basis';
import type { Kysely } from 'kysely';
import { Migrator } from 'kysely/migration';
import { migrations } from './migrations.ts';
import type { CatalogSchema } from './schema.ts';

/** `name`: how messages name the database; `hints`: what to do when it is refused. */
export async function migrate(
  db: Kysely<CatalogSchema>,
  name: string,
  hints: { foreign: string; newer: string },
): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
  const tables = (await db.introspection.getTables({ withInternalKyselyTables: true })).filter(
    (table) => !table.isView,
  );
  if (tables.length > 0 && !tables.some((table) => table.name === 'kysely_migration')) {
    throw new MidmirrorError(
      'corrupt',
      `${name} is a database of something else (it has a table "${tables[0]!.name}")`,
      { hint: hints.foreign },
    );
  }
  const { error } = await migrator.migrateToLatest();
  if (error === undefined) return;
  const newer = /previously executed migration (\S+) is missing/.exec(String(error));
  if (newer === null) throw error;
  throw new MidmirrorError('corrupt', `${name} was written by a newer Midmirror (${newer[1]})`, {
    hint: hints.newer,
  });
}
