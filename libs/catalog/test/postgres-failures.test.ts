import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { type MidmirrorError, messageOf } from '@midmirror/basis';
import { startPostgres } from '@midmirror/local-servers';
import { sql } from 'kysely';
import { type Catalog, type CatalogTransaction, openPostgresCatalog } from '../index.ts';
import { limits } from '../limits.ts';
import { cutProxy } from './cut-proxy.ts';
import { dropDatabase, emptyCatalog, execute } from './postgres-databases.ts';

async function withCatalog(act: (catalog: Catalog, url: string) => Promise<void>): Promise<void> {
  const url = await emptyCatalog();
  const catalog = await openPostgresCatalog(url);
  try {
    await act(catalog, url);
  } finally {
    await catalog.close();
    await dropDatabase(url);
  }
}

async function insert(db: Pick<CatalogTransaction, 'insertInto'>, projector: string): Promise<void> {
  await db.insertInto('position').values({ projector, position: 0 }).execute();
}

async function projectors({ db }: Catalog): Promise<string[]> {
  const rows = await db.selectFrom('position').select('projector').orderBy('projector').execute();
  return rows.map((row) => row.projector);
}

function unavailable(message: RegExp): (error: MidmirrorError) => boolean {
  return (error) => {
    assert.equal(error.code, 'unavailable', String(error));
    assert.match(error.message, message);
    return true;
  };
}

const fail = (state: string) =>
  sql.raw(`do $$ begin raise exception 'on purpose' using errcode = '${state}'; end $$`);

test('PostgreSQL killed in a transaction: it is told, nothing of it is there, and work goes on with the next one', async () => {
  const directory = mkdtempSync(`${tmpdir()}/mim-postgres-`);
  const options = { directory, log: () => {}, durable: false };
  let server = await startPostgres(options);
  try {
    const catalog = await openPostgresCatalog(server.url);
    let commits = 0;
    catalog.onCommit(() => void (commits += 1));
    await catalog.transaction((tx) => insert(tx, 'before'));
    await assert.rejects(
      catalog.transaction(async (tx) => {
        await insert(tx, 'lost');
        await server.kill();
        await insert(tx, 'lost too');
      }),
      unavailable(/terminated|ECONNRESET/),
    );
    assert.equal(commits, 1);
    // Asked while it is away, answered when it is back.
    const after = catalog.transaction((tx) => insert(tx, 'after'));
    server = await startPostgres({ ...options, port: server.port });
    await after;
    assert.deepEqual(await projectors(catalog), ['after', 'before']);
    assert.equal(commits, 2);
    await catalog.close();
  } finally {
    await server.stop();
    rmSync(directory, { recursive: true });
  }
});

test('a connection that ends while it commits: nobody knows, it is said, and it is not done again', () =>
  withCatalog(async (direct, url) => {
    const proxy = await cutProxy(url);
    const catalog = await openPostgresCatalog(proxy.url);
    let runs = 0;
    let told = 0;
    catalog.onCommit(() => void (told += 1));
    proxy.cutAtCommit();
    try {
      await assert.rejects(
        catalog.transaction(async (tx) => {
          runs += 1;
          await insert(tx, 'in doubt');
        }),
        unavailable(/may be there or not/),
      );
      assert.deepEqual({ runs, told }, { runs: 1, told: 0 });
      assert.deepEqual(await projectors(direct), ['in doubt']);
    } finally {
      await catalog.close();
      await proxy.close();
    }
  }));

test('an administrator ends the connections: a transaction is told why, the next ones get others', () =>
  withCatalog(async (catalog, url) => {
    const end = 'select pg_terminate_backend(pid) from pg_stat_activity where application_name =';
    await assert.rejects(
      catalog.transaction(async (tx) => {
        await insert(tx, 'lost');
        await execute(url, `${end} 'midmirror' and datname = current_database()`);
        await sql`select pg_sleep(0)`.execute(tx);
      }),
      unavailable(/administrator command|terminated/),
    );
    await insert(catalog.db, 'after');
    assert.deepEqual(await projectors(catalog), ['after']);
  }));

for (const state of ['40001', '40P01'])
  test(`${state}: a transaction that is rolled back because of another one runs again, not for ever`, () =>
    withCatalog(async (catalog) => {
      let runs = 0;
      let told = 0;
      catalog.onCommit(() => void (told += 1));
      const run = (projector: string, failures: number): Promise<void> =>
        catalog.transaction(async (tx) => {
          runs += 1;
          await insert(tx, projector);
          if (runs <= failures) await fail(state).execute(tx);
        });
      await run('once', 2);
      assert.deepEqual({ runs, told }, { runs: 3, told: 1 });
      assert.deepEqual(await projectors(catalog), ['once']);
      runs = 0;
      await assert.rejects(run('never', Number.POSITIVE_INFINITY), unavailable(/on purpose/));
      assert.deepEqual({ runs, told }, { runs: limits.attemptsMax, told: 1 });
    }));

test('other failures are told by their code, at once', () =>
  withCatalog(async (catalog) => {
    const expected = {
      ...{ '53100': 'no-space', '53300': 'unavailable', '57014': 'unavailable', '55P03': 'unavailable' },
      ...{ '23514': 'conflict', '22012': 'io', XX001: 'corrupt' },
    };
    for (const [state, code] of Object.entries(expected)) {
      let runs = 0;
      await assert.rejects(
        catalog.transaction(async (tx) => {
          runs += 1;
          await fail(state).execute(tx);
        }),
        (error: MidmirrorError) => error.code === code,
        state,
      );
      assert.equal(runs, 1);
    }
  }));

test('a transaction that goes on after a failed statement is not committed', () =>
  withCatalog(async (catalog) => {
    await insert(catalog.db, 'there');
    const goesOn = catalog.transaction(async (tx) => {
      await insert(tx, 'new');
      await insert(tx, 'there').catch(() => {});
    });
    await assert.rejects(goesOn, (error: MidmirrorError) => error.code === 'conflict');
    assert.deepEqual(await projectors(catalog), ['there']);
  }));

test('statements and waits for those who write end at their time limits', () =>
  withCatalog(async (holder, url) => {
    const catalog = await openPostgresCatalog(url, { statementTimeoutMs: 200, lockTimeoutMs: 100 });
    try {
      await assert.rejects(sql`select pg_sleep(60)`.execute(catalog.db), unavailable(/statement timeout/));
      await holder.transaction(async () => {
        await assert.rejects(insert(catalog.db, 'late'), unavailable(/lock timeout/));
      });
      await insert(catalog.db, 'in time');
    } finally {
      await catalog.close();
    }
  }));

test('closing lets a statement end and rolls the transaction under way back', () =>
  withCatalog(async (other, url) => {
    const catalog = await openPostgresCatalog(url);
    let closing: Promise<void> | undefined;
    const outcome = catalog.transaction(async (tx) => {
      await insert(tx, 'never');
      closing = catalog.close();
      await closing;
      await insert(tx, 'nor this');
    });
    await assert.rejects(outcome, unavailable(/is closed/));
    await insert(other.db, 'after');
    assert.deepEqual(await projectors(other), ['after']);
  }));

test('a number that JavaScript would round is an error', () =>
  withCatalog(async (catalog, url) => {
    await execute(url, `insert into position values ('far', ${2n ** 60n})`);
    await assert.rejects(catalog.db.selectFrom('position').selectAll().execute(), (error: unknown) =>
      /1152921504606846976, which is no safe integer/.test(messageOf(error)),
    );
  }));
