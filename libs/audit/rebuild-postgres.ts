// A catalogue on PostgreSQL made again, in an empty database and in one transaction: it is there whole, or the
// database is as empty as it was.
import { MidmirrorError } from '@midmirror/basis';
import { type Catalog, type CatalogTransaction, openPostgresCatalog } from '@midmirror/catalog';
import type { PoolFiles } from '@midmirror/pool';
import { limits } from './limits.ts';
import { fillCatalog, type RebuildReport } from './rebuild.ts';
import { type RebuildIndexReport, rebuildIndex } from './rebuild-index.ts';

/** As the services call themselves to the server; a rebuild has another name. */
const SERVICE = 'midmirror';

const TABLES = [
  ...(['volume', 'clone', 'snapshot', 'mark', 'gap', 'run', 'segment', 'sync', 'pin', 'activity'] as const),
  ...(['position', 'message'] as const),
];

/**
 * Throws `conflict` for a database that is not empty, `locked` while services are connected to it, and what
 * `openPostgresCatalog` throws. The caller sees to it that no other rebuild runs.
 */
export async function rebuildPostgresCatalog(
  files: PoolFiles,
  poolDirectory: string,
  url: string,
): Promise<RebuildReport> {
  const catalog = await openAlone(url);
  try {
    return await catalog.transaction(async (tx) => {
      await refuseServices(tx);
      await refuseFilled(tx);
      return await fillCatalog(files, poolDirectory, (act) => act(tx));
    });
  } finally {
    await catalog.close();
  }
}

/** As `rebuildIndex`, of a catalogue that is there. */
export async function rebuildPostgresIndex(
  files: PoolFiles,
  poolDirectory: string,
  url: string,
): Promise<RebuildIndexReport> {
  const catalog = await openAlone(url);
  try {
    await catalog.transaction(refuseServices);
    return await rebuildIndex(files, poolDirectory, catalog);
  } finally {
    await catalog.close();
  }
}

async function openAlone(url: string): Promise<Catalog> {
  const named = URL.canParse(url) ? new URL(url) : null;
  named?.searchParams.set('application_name', 'midmirror rebuild');
  return await openPostgresCatalog(named?.href ?? url, { idleInTransactionMs: limits.readingMsMax });
}

/** They would go on with what they knew of the catalogue before. */
async function refuseServices(tx: CatalogTransaction): Promise<void> {
  const sessions = await tx
    .withTables<{ pg_stat_activity: { pid: number; datname: string; application_name: string } }>()
    .selectFrom('pg_stat_activity')
    .select('pid')
    .where((e) => e('datname', '=', e.fn<string>('current_database')))
    .where('application_name', '=', SERVICE)
    .execute();
  if (sessions.length === 0) return;
  throw new MidmirrorError(
    'locked',
    `services are connected to the ${await nameOf(tx)} (${sessions.length} connections)`,
    { hint: 'stop every ingest, synchronizer, mapping-index and console of this pool, then try again' },
  );
}

async function refuseFilled(tx: CatalogTransaction): Promise<void> {
  for (const table of TABLES) {
    const found = await tx
      .selectFrom(table)
      .select((e) => e.lit(1).as('one'))
      .limit(1)
      .execute();
    if (found.length === 0) continue;
    throw new MidmirrorError(
      'conflict',
      `the ${await nameOf(tx)} is not empty: its table "${table}" has rows`,
      {
        hint: 'a rebuild takes nothing away: with all services stopped, make an empty database (`createdb`) and name that one, or drop this one first (`dropdb`)',
      },
    );
  }
}

async function nameOf(tx: CatalogTransaction): Promise<string> {
  const row = await tx.selectNoFrom((e) => e.fn<string>('current_database').as('name')).executeTakeFirst();
  return `database ${row?.name ?? ''}`;
}
