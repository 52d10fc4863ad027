import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePort } from '@midmirror/local-servers';
import type { MidmirrorError } from '@midmirror/basis';
import { type Catalog, openPostgresCatalog, type PostgresCatalogOptions } from '../index.ts';
import { migrations } from '../migrations.ts';
import { catalogContract } from './contract.ts';
import { dropDatabase, emptyCatalog, emptyDatabase, execute } from './postgres-databases.ts';

catalogContract('postgres');

const PROCESSES = 20;

function start(what: 'migrate' | 'hold', url: string) {
  const script = fileURLToPath(new URL('./catalog-process.ts', import.meta.url));
  return spawn(process.execPath, [script, what, url], { stdio: ['pipe', 'pipe', 'inherit'] });
}

async function withDatabase(act: (url: string) => Promise<void>, empty = false): Promise<void> {
  const url = await (empty ? emptyDatabase() : emptyCatalog());
  try {
    await act(url);
  } finally {
    await dropDatabase(url);
  }
}

async function withCatalogs(
  options: Partial<PostgresCatalogOptions>,
  act: (one: Catalog, other: Catalog, url: string) => Promise<void>,
): Promise<void> {
  await withDatabase(async (url) => {
    const [one, other] = [await openPostgresCatalog(url, options), await openPostgresCatalog(url, options)];
    try {
      await act(one, other, url);
    } finally {
      await one.close();
      await other.close();
    }
  });
}

const insertPosition = (catalog: Pick<Catalog['db'], 'insertInto'>, projector: string) =>
  catalog.insertInto('position').values({ projector, position: 0 }).execute();

async function positionOf(catalog: Catalog, projector: string): Promise<number | undefined> {
  const row = await catalog.db
    .selectFrom('position')
    .select('position')
    .where('projector', '=', projector)
    .executeTakeFirst();
  return row?.position;
}

/** Says so, and does not say the password. */
function refusedAs(code: string, message: RegExp, url: string): (error: MidmirrorError) => boolean {
  return (error) => {
    assert.equal(error.code, code, String(error));
    assert.match(error.message, message);
    const { password } = new URL(url);
    assert.ok(!`${error.message} ${error.hint} ${JSON.stringify(error.details)}`.includes(password));
    return true;
  };
}

test(`${PROCESSES} processes that start together migrate an empty database once`, () =>
  withDatabase(async (url) => {
    const ends = Array.from(
      { length: PROCESSES },
      async () => (await once(start('migrate', url), 'exit'))[0],
    );
    assert.deepEqual(await Promise.all(ends), Array(PROCESSES).fill(0));
    const done = await execute(url, 'select name from kysely_migration order by name');
    assert.deepEqual(
      done.map((row) => row['name']),
      Object.keys(migrations),
    );
  }, true));

test('a database of something else is refused, and left as it was', () =>
  withDatabase(async (url) => {
    await execute(url, 'create table recipe (name text)');
    await assert.rejects(
      openPostgresCatalog(url),
      refusedAs('corrupt', /database of something else \(it has a table "recipe"\)/, url),
    );
    const tables = await execute(url, "select tablename from pg_tables where schemaname = 'public'");
    assert.deepEqual(tables, [{ tablename: 'recipe' }]);
  }, true));

test('what an extension looks in with is no table of something else', () =>
  withDatabase(async (url) => {
    await execute(url, 'create view activity_of_all as select 1 as one');
    await (await openPostgresCatalog(url)).close();
  }, true));

test('a catalogue of a newer Midmirror is refused', () =>
  withDatabase(async (url) => {
    await execute(url, "insert into kysely_migration (name, timestamp) values ('999-later', '2030-01-01')");
    await assert.rejects(
      openPostgresCatalog(url),
      refusedAs('corrupt', /newer Midmirror \(999-later\)/, url),
    );
  }));

test('a wrong password, an unknown database, nobody at the port: each is told', () =>
  withDatabase(async (url) => {
    const wrong = new URL(url);
    wrong.password = 'wrong-and-secret';
    await assert.rejects(
      openPostgresCatalog(wrong.href),
      refusedAs('io', /password authentication failed for user "midmirror"/, wrong.href),
    );
    const unknown = new URL(url);
    unknown.pathname = '/nowhere';
    await assert.rejects(
      openPostgresCatalog(unknown.href),
      refusedAs('io', /database "nowhere" does not exist/, url),
    );
    const nobody = new URL(url);
    nobody.port = String(await freePort());
    await assert.rejects(
      openPostgresCatalog(nobody.href, { connectRetryMs: 200 }),
      refusedAs('unavailable', new RegExp(`127.0.0.1:${nobody.port}/test_\\d+ failed: .*ECONNREFUSED`), url),
    );
  }));

test('URLs that can not be used are refused without saying the password', async () => {
  for (const [url, message] of [
    ['mysql://midmirror:opensesame@host/mim', /does not begin with postgresql/],
    ['midmirror:opensesame@host/mim', /does not begin with postgresql/],
    ['postgresql://midmirror:opensesame@host', /names no database/],
    ['postgresql://midmirror:opensesame@/mim', /names no host/],
    ['postgresql://midmirror:1/opensesame@host/mim', /"\/" in its password must be written %2F/],
    ['postgresql://midmirror:open#sesame@host/mim', /can't be used/],
    ['postgresql://midmirror:opensesame@host/mim?sslrootcert=/nowhere.pem', /nowhere\.pem/],
    ['postgresql://midmirror:opensesame@host/mim?sslmode=verify-ca', /sslrootcert/],
  ] as const)
    await assert.rejects(openPostgresCatalog(url), (error: MidmirrorError) => {
      assert.equal(error.code, 'bad-request', String(error));
      assert.match(error.message, message);
      assert.doesNotMatch(`${error.message} ${error.hint}`, /open.?sesame/);
      return true;
    });
});

test('transactions and single writes of several pools follow one another', () =>
  withCatalogs({}, async (one, other) => {
    await insertPosition(one.db, 'count');
    const add = (catalog: Catalog): Promise<void> =>
      catalog.transaction(async (tx) => {
        const { position } = await tx.selectFrom('position').selectAll().executeTakeFirstOrThrow();
        await tx
          .updateTable('position')
          .set({ position: position + 1 })
          .execute();
      });
    const addAlone = (catalog: Catalog): Promise<unknown> =>
      catalog.db
        .updateTable('position')
        .set((e) => ({ position: e('position', '+', 1) }))
        .execute();
    const all = Array.from({ length: 20 }, () => [add(one), addAlone(other), add(other), addAlone(one)]);
    await Promise.all(all.flat());
    assert.equal(await positionOf(one, 'count'), 80);
  }));

test('many who wait to write leave connections to those who read', () =>
  withCatalogs({ poolMax: 2 }, async (catalog) => {
    await insertPosition(catalog.db, 'first');
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const holding = catalog.transaction(async () => await ended);
    const waiting = Array.from({ length: 30 }, (_, i) => insertPosition(catalog.db, `waiting ${i}`));
    const seen = await Promise.all(Array.from({ length: 10 }, () => positionOf(catalog, 'first')));
    assert.deepEqual(seen, Array(10).fill(0));
    assert.equal(
      await positionOf(catalog, 'waiting 0'),
      undefined,
      'a single write waits for the transaction',
    );
    end();
    await Promise.all([holding, ...waiting]);
    assert.equal(await positionOf(catalog, 'waiting 29'), 0);
  }));

test('a process that is stopped in a transaction holds the others up for a moment only', () =>
  withCatalogs({}, async (catalog, _other, url) => {
    const holder = start('hold', url);
    const said: string[] = [];
    holder.stdout.on('data', (bytes: Buffer) => said.push(bytes.toString()));
    await once(holder.stdout, 'data');
    holder.kill('SIGSTOP');
    await insertPosition(catalog.db, 'meanwhile');
    holder.kill('SIGCONT');
    holder.stdin.write('go on\n');
    await once(holder, 'close');
    assert.match(said.join(''), /^holding\nunavailable: .*idle-in-transaction timeout/);
  }));
