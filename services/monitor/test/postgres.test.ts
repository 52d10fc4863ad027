// A real PostgreSQL whose machine lost its power: its files started again by the check, sound, damaged, and hostile.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { after, before, test } from 'node:test';
import { postgresVersion, startPostgres } from '@midmirror/local-servers';
import type { ProbeResult } from './probe.ts';
import { noIsolation } from '../runner/isolation.ts';
import { probing } from './moment.ts';
import { runs } from './recorded-disk.ts';

const ROLE = 'midmirror';
const VERSION = postgresVersion().split('.')[0]!;
const DATA = `/var/lib/postgresql/${VERSION}/main`;
let folder: string;
/** The files of a disk on which the server was killed; each test has a copy. */
let sound: string;
/** Of the table, within the data directory. */
let table: string;

before(async () => {
  folder = mkdtempSync(`${tmpdir()}/mim-`);
  chmodSync(folder, 0o755);
  const server = await startPostgres({
    directory: `${folder}/server`,
    log: () => {},
    durable: false,
    settings: { checkpoint_timeout: '1h' },
  });
  const psql = (sql: string): Promise<string> =>
    runs('psql', ['-XAtq', '-v', 'ON_ERROR_STOP=1', server.url, '-c', sql]);
  await psql('create table accounts (id int primary key, owner text, balance int)');
  await psql("insert into accounts select i, 'owner ' || i, i from generate_series(1, 5000) i");
  await psql('checkpoint');
  table = (await psql("select pg_relation_filepath('accounts')")).trim();
  await psql("insert into accounts select i, 'late ' || i, i from generate_series(5001, 9000) i");
  await server.kill();
  sound = `${folder}/sound`;
  mkdirSync(`${sound}${DATA.slice(0, -'/main'.length)}`, { recursive: true });
  renameSync(`${folder}/server/data`, `${sound}${DATA}`);
});

after(() => rmSync(folder, { recursive: true, force: true }));

function clone(name: string): string {
  const root = `${folder}/${name}`;
  cpSync(sound, root, { recursive: true, preserveTimestamps: true });
  own(root, statSync(`${sound}${DATA}`));
  return root;
}

/** A copy of Node's belongs to who makes it. */
function own(path: string, { uid, gid }: { uid: number; gid: number }): void {
  if (path.includes(DATA)) chownSync(path, uid, gid);
  if (!statSync(path).isDirectory()) return;
  if (path.includes(DATA)) chmodSync(path, 0o700);
  for (const name of readdirSync(path)) own(`${path}/${name}`, { uid, gid });
}

function check(root: string, settings: object = {}, isolation?: typeof noIsolation): Promise<ProbeResult> {
  const files = { path: root, writable: true };
  return probing('postgres', { role: ROLE, ...settings }, { files }, folder, isolation);
}

const all = {
  name: 'all rows',
  sql: 'select 1 where (select count(*) from accounts) <> 9000',
  database: ROLE,
};

for (const [name, isolation] of [
  ['all', undefined],
  ['none', noIsolation],
] as const)
  test(`after a power loss it recovers and is good, with every commit (isolation: ${name} of it)`, async () => {
    const root = clone(`good-${name}`);
    const { verdict, output, left, reason } = await check(
      root,
      { amcheck: 'all', assertions: [all] },
      isolation,
    );
    assert.equal(verdict, 'good', `${reason}: ${output}`);
    assert.equal(output, `PostgreSQL ${VERSION} in ${DATA}\nrecovered\npg_amcheck: nothing found\n`);
    assert.deepEqual(left, []);
  });

test('a broken page of a table is bad', async () => {
  const root = clone('page');
  const file = `${root}${DATA}/${table}`;
  const bytes = readFileSync(file);
  // Of a page that recovery does not write anew: its line pointers lead astray.
  randomBytes(200).copy(bytes, 8192 * 3 + 24);
  writeFileSync(file, bytes);
  const { verdict, output, reason } = await check(root);
  assert.equal(verdict, 'bad', `${reason}: ${output}`);
  assert.match(output, /pg_amcheck: [\s\S]*accounts/);
});

test('an index that lacks rows is bad', async () => {
  const root = clone('index');
  const file = `${root}${DATA}/${table}`;
  const bytes = readFileSync(file);
  // A row of the third page says another id than the index does.
  const pointer = bytes.readUInt32LE(8192 * 2 + 24) & 0x7fff;
  bytes.writeInt32LE(123_456, 8192 * 2 + pointer + 24);
  writeFileSync(file, bytes);
  assert.equal((await check(root, { amcheck: 'tables' })).verdict, 'good', 'each alone is sound');
  const { verdict, output } = await check(clone('index'), { amcheck: 'all' });
  assert.equal(verdict, 'good', `an untouched copy: ${output}`);
  writeFileSync(file, bytes);
  const both = await check(root, { amcheck: 'all' });
  assert.equal(both.verdict, 'bad', both.output);
  assert.match(both.output, /lacks matching index tuple/);
});

test('a log that can not be recovered from is bad', async () => {
  const root = clone('wal');
  const wal = `${root}${DATA}/pg_wal`;
  for (const name of readdirSync(wal))
    if (/^[0-9A-F]{24}$/.test(name)) writeFileSync(`${wal}/${name}`, Buffer.alloc(16 << 20));
  const { verdict, output } = await check(root);
  assert.equal(verdict, 'bad', output);
  assert.match(output, /it does not recover:[\s\S]*checkpoint record/);
});

test('an assertion that is violated is bad and tells the rows; one that can not be asked condemns nothing', async () => {
  const root = clone('assert');
  const rich = {
    name: 'nobody is rich',
    sql: 'select id, null from accounts where balance > 8998',
    database: ROLE,
  };
  const bad = await check(root, { amcheck: 'none', assertions: [all, rich] });
  assert.equal(bad.verdict, 'bad', bad.output);
  assert.match(bad.output, /nobody is rich is violated:\n {4}8999,\n {4}9000,\n/);
  const writes = { name: 'it writes', sql: 'delete from accounts', database: ROLE };
  const refused = await check(root, { amcheck: 'none', assertions: [writes] });
  assert.equal(refused.verdict, 'cannot-tell');
  assert.match(refused.output, /it writes can't be asked: [\s\S]*read-only transaction/);
});

test('what the guest has set runs no program, reaches for no other server, and waits for none', async () => {
  const root = clone('hostile');
  const touched = `${folder}/touched`;
  writeFileSync(
    `${root}${DATA}/postgresql.auto.conf`,
    `archive_mode = on\narchive_command = 'touch ${touched}'\nshared_preload_libraries = 'not_there'\nlisten_addresses = '*'\n`,
  );
  writeFileSync(`${root}${DATA}/standby.signal`, '');
  writeFileSync(`${root}${DATA}/postmaster.pid`, '1\n');
  const { verdict, output } = await check(root, { assertions: [all] });
  assert.equal(verdict, 'good', output);
  assert.equal(existsSync(touched), false);
});

test('tablespaces are found in the clone, and a link out of it is not followed', async () => {
  const root = clone('links');
  mkdirSync(`${root}/srv/space`, { recursive: true });
  renameSync(`${root}${DATA}/pg_wal`, `${root}/srv/wal`);
  symlinkSync('/srv/wal', `${root}${DATA}/pg_wal`);
  const inside = await check(root, { amcheck: 'none', assertions: [all] });
  assert.equal(inside.verdict, 'good', inside.output);
  const outside = clone('outside');
  symlinkSync('/var/lib', `${outside}/lib`);
  rmSync(`${outside}${DATA}/pg_wal`, { recursive: true });
  symlinkSync('/lib/postgresql', `${outside}${DATA}/pg_wal`);
  const refused = await check(outside);
  assert.deepEqual([refused.verdict, /leads out of the clone/.test(refused.output)], ['cannot-tell', true]);
});

test('what is not there, or not ours to start, can not be told', async () => {
  const says = async (root: string, settings: object, said: RegExp): Promise<void> => {
    const { verdict, output } = await check(root, settings);
    assert.equal(verdict, 'cannot-tell', output);
    assert.match(output, said);
  };
  mkdirSync(`${folder}/empty`);
  await says(`${folder}/empty`, {}, /no PostgreSQL was found where packages put it/);
  await says(sound, { dataDirectory: '/srv' }, /there is no PostgreSQL in \/srv/);
  const old = clone('old');
  writeFileSync(`${old}${DATA}/PG_VERSION`, '9.1\n');
  await says(old, {}, /is of PostgreSQL 9\.1, which is not on this machine/);
  await says(clone('role'), { role: 'nobody' }, /role "nobody" does not exist; the setting role says which/);
  const mirror = { files: { path: sound, writable: false } };
  const { output } = await probing('postgres', {}, mirror, folder);
  assert.match(output, /it needs a clone, not a mirror/);
});
