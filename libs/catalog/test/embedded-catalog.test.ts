import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { openEmbeddedCatalog } from '../index.ts';
import { type CatalogUnderTest, catalogContract } from './contract.ts';

catalogContract('embedded', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-catalog-`);
  const under: CatalogUnderTest = {
    catalog: await openEmbeddedCatalog(`${folder}/catalog.db`),
    async reopen() {
      await under.catalog.close();
      under.catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
    },
    async close() {
      await under.catalog.close();
      rmSync(folder, { recursive: true });
    },
  };
  return under;
});

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
