// The catalogue: what is known of volumes, points, runs and pins, and the events, in one file. A row and the
// event that tells of it commit together. It can be rebuilt from the pool (I7).
import { MidmirrorError } from '@midmirror/basis';
import { Kysely, type Transaction } from 'kysely';
import { Migrator } from 'kysely/migration';
import { migrations } from './migrations.ts';
import type { CatalogSchema } from './schema.ts';
import { sqliteDialect } from './sqlite-dialect.ts';

export type CatalogReader = Kysely<CatalogSchema>;
export type CatalogTransaction = Transaction<CatalogSchema>;

export interface Catalog {
  readonly db: CatalogReader;
  /** Exclusive; commits when `act` resolves, durable then; rolls back when it rejects. */
  transaction<T>(act: (tx: CatalogTransaction) => Promise<T>): Promise<T>;
  /** Called after each commit, with the transaction that it ended. */
  onCommit(listener: (tx: CatalogTransaction) => void): void;
  close(): Promise<void>;
}

/** Opens the embedded catalogue, making or migrating it as needed. Throws `corrupt` for what it can't use. */
export async function openEmbeddedCatalog(path: string): Promise<Catalog> {
  const db = new Kysely<CatalogSchema>({ dialect: sqliteDialect(path) });
  try {
    await migrate(db, path);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  const listeners: ((tx: CatalogTransaction) => void)[] = [];
  return {
    db,
    async transaction(act) {
      const { tx, result } = await db.transaction().execute(async (tx) => ({ tx, result: await act(tx) }));
      for (const listener of listeners) listener(tx);
      return result;
    },
    onCommit(listener) {
      listeners.push(listener);
    },
    close: () => db.destroy(),
  };
}

async function migrate(db: Kysely<CatalogSchema>, path: string): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
  const tables = await db.introspection.getTables({ withInternalKyselyTables: true });
  if (tables.length > 0 && !tables.some((table) => table.name === 'kysely_migration')) {
    throw new MidmirrorError(
      'corrupt',
      `${path} is a database of something else (it has a table "${tables[0]!.name}")`,
      {
        hint: 'move the file out of the data directory; `mim rebuild` makes a new catalogue from the pool',
      },
    );
  }
  const { error } = await migrator.migrateToLatest();
  if (error !== undefined) {
    const foreign = /previously executed migration (\S+) is missing/.exec(String(error));
    if (foreign !== null) throw newer(path, foreign[1]!);
    throw error;
  }
}

function newer(path: string, name: string): MidmirrorError {
  return new MidmirrorError('corrupt', `${path} was written by a newer Midmirror (${name})`, {
    hint: 'run that version, or move the file away and run `mim rebuild`',
  });
}
