// Real SQLite databases among the files of a mirror: sound, in mid-write, damaged, with and without what is asserted.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { filesWithin } from '../kinds/files-within.ts';
import { readyCheck } from '../kinds/all-kinds.ts';
import type { ProbeResult } from './probe.ts';
import { probing } from './moment.ts';
import { withFolder } from './shell-check.ts';

function check(folder: string, settings: object, files = `${folder}/files`): Promise<ProbeResult> {
  return probing(
    'sqlite',
    { paths: ['/app/*.db'], ...settings },
    { files: { path: files, writable: false } },
    folder,
  );
}

function fill(path: string, rows = 2000): DatabaseSync {
  const database = new DatabaseSync(path);
  database.exec(`
    PRAGMA journal_mode = WAL;
    CREATE TABLE owners (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owners, balance INTEGER);
    CREATE INDEX by_owner ON accounts (owner, balance);
    INSERT INTO owners VALUES (1, 'one');
  `);
  const insert = database.prepare('INSERT INTO accounts (owner, balance) VALUES (1, ?)');
  for (let i = 0; i < rows; i += 1) insert.run(i);
  return database;
}

async function withDatabase(act: (folder: string, path: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    mkdirSync(`${folder}/files/app`, { recursive: true });
    await act(folder, `${folder}/files/app/bank.db`);
  });
}

test('a sound one is good, and is not changed by being looked at', () =>
  withDatabase(async (folder, path) => {
    fill(path).close();
    const before = readFileSync(path);
    const { verdict, output, left } = await check(folder, {});
    assert.deepEqual([verdict, output, left], ['good', '/app/bank.db: sound\n', []]);
    assert.ok(readFileSync(path).equals(before));
  }));

test('one in mid-write is what its log makes of it', () =>
  withDatabase(async (folder, path) => {
    const database = fill(path);
    // As a crash leaves them: the log holds nearly everything.
    mkdirSync(`${folder}/then/app`, { recursive: true });
    for (const part of ['', '-wal']) copyFileSync(`${path}${part}`, `${folder}/then/app/bank.db${part}`);
    database.close();
    const rows = 'SELECT 1 WHERE (SELECT count(*) FROM accounts) <> 2000';
    const asked = { assertions: [{ name: 'all rows', sql: rows }] };
    assert.equal((await check(folder, asked, `${folder}/then`)).verdict, 'good');
    truncateSync(`${folder}/then/app/bank.db-wal`, 100_000);
    const less = await check(folder, asked, `${folder}/then`);
    assert.deepEqual([less.verdict, /all rows is violated by 1 rows/.test(less.output)], ['bad', true]);
  }));

test('a broken page is bad, wherever it is', () =>
  withDatabase(async (folder, path) => {
    fill(path).close();
    const sound = readFileSync(path);
    for (const page of [0, 3, 9, Math.floor(sound.length / 4096) - 1]) {
      const broken = Buffer.from(sound);
      // Page 0: the schema itself. Others: the b-tree's own header and cell pointers.
      broken.fill(0xff, page * 4096 + (page === 0 ? 100 : 0), page * 4096 + 140);
      writeFileSync(path, broken);
      const { verdict, output } = await check(folder, {});
      assert.equal(verdict, 'bad', `page ${page}: ${output}`);
    }
    writeFileSync(path, 'no database at all, and long enough to be looked at'.repeat(100));
    assert.match((await check(folder, {})).output, /file is not a database/);
  }));

test('assertions: rows that violate them are told; a query that is wrong condemns nothing', () =>
  withDatabase(async (folder, path) => {
    const database = fill(path, 10);
    database.exec('PRAGMA foreign_keys = OFF; UPDATE accounts SET owner = 99 WHERE id = 4');
    database.close();
    const range = { name: 'no debt', sql: 'SELECT id, balance FROM accounts WHERE balance > 7' };
    const bad = await check(folder, { assertions: [range] });
    assert.equal(bad.verdict, 'bad');
    assert.match(bad.output, /no debt: \{"id":"9","balance":"8"\}\n.*\n.*no debt is violated by 2 rows/);
    const keys = await check(folder, { foreignKeys: true });
    assert.match(keys.output, /row 4 of accounts refers to no row of owners/);
    const wrong = await check(folder, { assertions: [{ sql: 'SELECT * FROM nowhere' }] });
    assert.deepEqual(
      [wrong.verdict, /can't be asked: no such table/.test(wrong.output)],
      ['cannot-tell', true],
    );
    const other = await check(folder, { assertions: [{ ...range, database: '/app/other.db' }] });
    assert.equal(other.verdict, 'good');
  }));

test('no file can not be told, or is bad where one must be', () =>
  withDatabase(async (folder) => {
    assert.equal((await check(folder, {})).verdict, 'cannot-tell');
    assert.equal((await check(folder, { missing: 'bad' })).verdict, 'bad');
  }));

test('links are not followed, neither as a database nor as its log nor on the way', () =>
  withDatabase(async (folder, path) => {
    fill(`${folder}/outside.db`).close();
    symlinkSync(`${folder}/outside.db`, path);
    assert.equal((await check(folder, {})).verdict, 'cannot-tell');
    symlinkSync(folder, `${folder}/files/link`);
    assert.deepEqual(filesWithin(`${folder}/files`, '/link/outside.db'), []);
    assert.deepEqual(filesWithin(`${folder}/files`, '/**/outside.db'), []);
    const other = `${folder}/files/app/other.db`;
    fill(other).close();
    writeFileSync(`${folder}/secret`, 'secret');
    symlinkSync(`${folder}/secret`, `${other}-wal`);
    assert.equal((await check(folder, {})).verdict, 'good');
  }));

test('patterns find files in any folder', () =>
  withFolder(async (folder) => {
    for (const file of ['a/x.db', 'a/b/x.db', 'a/b/c/x.dbx', 'x.db', 'a/[x].db']) {
      mkdirSync(`${folder}/${file.replace(/\/?[^/]*$/, '')}`, { recursive: true });
      writeFileSync(`${folder}/${file}`, '');
    }
    const found = (pattern: string): string[] => filesWithin(folder, pattern);
    assert.deepEqual(found('/**/*.db'), ['/a/[x].db', '/a/b/x.db', '/a/x.db', '/x.db']);
    assert.deepEqual(found('/a/?.db'), ['/a/x.db']);
    assert.deepEqual(found('/a/[x].db'), ['/a/[x].db']);
    assert.deepEqual(found('/*/*/x.db'), ['/a/b/x.db']);
    assert.deepEqual(found('/nowhere/*'), []);
  }));

test('settings that are wrong are refused by name', () => {
  const refused = (given: unknown, reason: RegExp): void =>
    assert.throws(() => readyCheck('sqlite', given), reason);
  refused({}, /needs paths/);
  refused(
    { paths: ['relative'] },
    /paths of a check of kind sqlite is "relative"; expected a path of the mirror/,
  );
  refused({ paths: ['/a/../../b'] }, /has no \.\./);
  refused({ paths: ['/a'], asertions: [] }, /has no setting "asertions"/);
  refused({ paths: ['/a'], assertions: [{ name: 'x' }] }, /assertions\[0\].*expected a list/);
  refused({ paths: ['/a'], missing: 'maybe' }, /missing .* is "maybe"; expected cannot-tell or bad/);
  refused({ paths: ['/a'], timeSeconds: 0 }, /timeSeconds .* is 0; expected a whole number from 1 to/);
  assert.throws(() => readyCheck('nothing', {}), /there is no kind of check "nothing"/);
});
