import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { Kysely, sql } from 'kysely';
import { Migrator } from 'kysely/migration';
import { loadRun, openEmbeddedCatalog, runsOf } from '../index.ts';
import { migrations } from '../migrations.ts';
import { sqliteDialect } from '../sqlite-dialect.ts';
import { catalogContract } from './contract.ts';

catalogContract('embedded');

async function refused(prepare: (path: string) => void, message: RegExp): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-catalog-`);
  try {
    prepare(`${folder}/catalog.db`);
    await assert.rejects(openEmbeddedCatalog(`${folder}/catalog.db`), message);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a file that is no database is refused', () =>
  refused((path) => writeFileSync(path, 'a letter to my aunt '.repeat(400)), /not a sound catalogue/));

test('a database of something else is refused', () =>
  refused((path) => {
    const database = new DatabaseSync(path);
    database.exec('create table recipe (name text)');
    database.close();
  }, /database of something else \(it has a table "recipe"\)/));

test('a catalogue of a newer Midmirror is refused', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-catalog-`);
  const path = `${folder}/catalog.db`;
  await (await openEmbeddedCatalog(path)).close();
  const database = new DatabaseSync(path);
  database.exec("insert into kysely_migration (name, timestamp) values ('999-later', '2030-01-01')");
  database.close();
  await assert.rejects(openEmbeddedCatalog(path), /newer Midmirror \(999-later\)/);
  rmSync(folder, { recursive: true });
});

test('a catalogue of the first release is taken over, its runs with all their extents', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-catalog-`);
  const path = `${folder}/catalog.db`;
  try {
    const first = new Kysely<unknown>({ dialect: sqliteDialect(path) });
    const provider = { getMigrations: async () => ({ '001-initial': migrations['001-initial']! }) };
    const { error } = await new Migrator({ db: first, provider }).migrateToLatest();
    assert.equal(error, undefined);
    await first.destroy();
    const database = new DatabaseSync(path);
    database.exec("insert into run values (7, 'v1', 'backward', 12, 3, 40, 50, 600, 9)");
    // Six words an extent: start in two, length with flags, source, offset, checksum; 512 extents a page.
    const flags = ExtentFlag.whole | ExtentFlag.backward;
    for (const from of [0, 512]) {
      const words = new Uint32Array(6 * Math.min(512, 600 - from));
      for (let i = 0; i * 6 < words.length; i += 1)
        words.set([(from + i) * 8192, 2, 4096 + flags, 12, 4096 * (from + i + 1), from + i], i * 6);
      const page = new Uint8Array(words.buffer);
      database.prepare('insert into pel_page values (7, ?, ?)').run(from * 8192 + 2 * 2 ** 32, page);
    }
    database.close();
    const catalog = await openEmbeddedCatalog(path);
    const [run, ...others] = await runsOf(catalog.db, 'v1', 'backward');
    assert.equal(others.length, 0);
    const { id, level, first_source, source, snapshot, last_snapshot, extents, data_bytes } = run!;
    assert.deepEqual(
      { id, level, first_source, source, snapshot, last_snapshot, extents, data_bytes },
      {
        id: 7,
        level: 0,
        first_source: 12,
        source: 12,
        snapshot: 3,
        last_snapshot: 3,
        extents: 600,
        data_bytes: 9,
      },
    );
    const map = new ExtentMap();
    await loadRun(catalog.db, run!, map, false);
    assert.equal(map.size, 600);
    let i = 0;
    for (const c = map.cursor(); c.valid; c.next(), i += 1)
      assert.deepEqual(
        [c.start, c.length, c.flags, c.source, c.offset, c.crc],
        [i * 8192 + 2 * 2 ** 32, 4096, flags, 12, 4096 * (i + 1), i],
      );
    await catalog.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a transaction that SQLite has rolled back by itself fails with what it failed with', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-catalog-`);
  const catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
  try {
    await sql`create table once (name text primary key)`.execute(catalog.db);
    await sql`insert into once values ('a')`.execute(catalog.db);
    // As a full disk does it, by the same means.
    const again = catalog.transaction(async (tx) => {
      await sql`insert or rollback into once values ('a')`.execute(tx);
    });
    await assert.rejects(again, /the catalogue refuses it: UNIQUE constraint failed/);
    await catalog.transaction(async (tx) => void (await sql`insert into once values ('b')`.execute(tx)));
  } finally {
    await catalog.close();
    rmSync(folder, { recursive: true });
  }
});
