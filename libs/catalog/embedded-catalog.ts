// The catalogue of one process, in a file of SQLite.
import { Kysely } from 'kysely';
import { type Catalog, catalogOver } from './catalog.ts';
import { migrate } from './migrate.ts';
import type { CatalogSchema } from './schema.ts';
import { sqliteDialect } from './sqlite-dialect.ts';

/** Opens the embedded catalogue, making or migrating it as needed. Throws `corrupt` for what it can't use. */
export async function openEmbeddedCatalog(path: string): Promise<Catalog> {
  const db = new Kysely<CatalogSchema>({ dialect: sqliteDialect(path) });
  try {
    await migrate(db, path, {
      foreign: 'move the file out of the data directory; `mim rebuild` makes a new catalogue from the pool',
      newer: 'run that version, or move the file away and run `mim rebuild`',
    });
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return catalogOver(db);
}
