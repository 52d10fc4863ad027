// The catalogue of many processes, in a database of PostgreSQL.
import { Kysely } from 'kysely';
import { type Catalog, catalogOver } from './catalog.ts';
import { limits } from './limits.ts';
import { migrate } from './migrate.ts';
import { type PostgresLimits, postgresDialect } from './postgres-dialect.ts';
import { RolledBackError } from './postgres-errors.ts';
import { parsePostgresUrl } from './postgres-url.ts';
import type { CatalogSchema } from './schema.ts';

export interface PostgresCatalogOptions extends PostgresLimits {
  /** Of all migrations together, and of waiting for another process that makes them. */
  migrationTimeoutMs: number;
}

const postgresDefaults: PostgresCatalogOptions = {
  poolMax: 8,
  connectTimeoutMs: 5000,
  connectRetryMs: 10_000,
  statementTimeoutMs: 60_000,
  lockTimeoutMs: 30_000,
  idleInTransactionMs: 5000,
  migrationTimeoutMs: 600_000,
};

/**
 * Opens the catalogue in an empty database or its own, migrating it as needed; of many processes that start together
 * one does. Throws `bad-request` for a URL, `corrupt` for a database that it can't use, `unavailable` when none answers.
 */
export async function openPostgresCatalog(
  url: string,
  options: Partial<PostgresCatalogOptions> = {},
): Promise<Catalog> {
  const bounds = { ...postgresDefaults, ...options };
  const { config, name } = parsePostgresUrl(url);
  const patient = {
    ...bounds,
    ...{
      poolMax: 1,
      statementTimeoutMs: bounds.migrationTimeoutMs,
      lockTimeoutMs: bounds.migrationTimeoutMs,
      // Many processes that start together leave each other little of the machine.
      idleInTransactionMs: Math.max(bounds.idleInTransactionMs, limits.migratingIdleMs),
    },
  };
  const migrating = new Kysely<CatalogSchema>({ dialect: postgresDialect(config, name, patient) });
  try {
    await migrating.transaction().execute((tx) =>
      migrate(tx, `the database ${name}`, {
        foreign: 'give Midmirror a database of its own',
        newer: 'run that version, or give this one an empty database',
      }),
    );
  } finally {
    await migrating.destroy();
  }
  const db = new Kysely<CatalogSchema>({ dialect: postgresDialect(config, name, bounds) });
  return catalogOver(
    db,
    (error, attempt) => error instanceof RolledBackError && attempt < limits.attemptsMax,
  );
}
