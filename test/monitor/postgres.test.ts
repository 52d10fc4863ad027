// A real PostgreSQL at work on the volume: a moment in the middle of its work is recovered on a clone and looked through; a row
// out of range and a broken page are found, in the right moments.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { test } from 'node:test';
import { startPostgres } from '@midmirror/local-servers';
import pg from 'pg';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import { MountedDisk } from '../replicator/mounted-disk.ts';
import { certify, clonesOf, ended, leftOf, type ShownJob } from './checked-volume.ts';
import { HotDatabase } from './hot-database.ts';

const SETTINGS = {
  max_wal_size: '48MB',
  min_wal_size: '32MB',
  shared_buffers: '16MB',
  max_connections: '20',
};
const PAGE_BYTES = 8192;

test('postgres: recovers, asserts, and finds a broken page', (context) =>
  withAppliance({}, async (appliance, folder) => {
    // PostgreSQL is another user.
    chmodSync(folder, 0o755);
    await appliance.post('/volumes', { name: 'db', sizeBytes: 160 << 20 });
    const mount = (name: string, format: boolean) =>
      MountedDisk.mount(folder, name, appliance.uri('db'), { retrying: false, format });
    let disk = await mount('disk', true);
    const log = (line: string): void => context.diagnostic(line);
    const mark = (name: string) => appliance.post('/volumes/db/marks', { name });
    let page = { file: '', at: 0 };
    try {
      await mark('before');
      const server = await startPostgres({ directory: `${disk.path}/pg`, log, settings: SETTINGS });
      const hot = new HotDatabase(`${disk.path}/app.db`);
      try {
        await succeed('sync', ['-f', disk.path]);
        const client = new pg.Client(server.url);
        await client.connect();
        await client.query('create table item (id int primary key, price int not null)');
        await client.query('insert into item select i, i % 50 from generate_series(1, 20000) i');
        await client.query('checkpoint');
        await client.query('update item set price = price + 1 where id % 7 = 0');
        hot.begin();
        // Its pages alone: that there is a journal to it, only the journal of the file system says.
        await succeed('sync', ['-d', `${disk.path}/app.db`]);
        await mark('working');
        await client.query('update item set price = 1000 where id = 1234');
        await mark('out-of-range');
        mkdirSync(`${disk.path}/pg/far`);
        await succeed('chown', ['--reference', `${disk.path}/pg/data`, `${disk.path}/pg/far`]);
        await client.query(`create tablespace far location '${disk.path}/pg/far'`);
        await client.query('create table far tablespace far as select * from item');
        const { rows } = await client.query<{ file: string }>("select pg_relation_filepath('item') as file");
        page = { file: `pg/data/${rows[0]!.file}`, at: 3 * PAGE_BYTES };
        await client.end();
      } finally {
        hot.end();
        await server.stop();
      }
      // As people have it who keep the log on another disk; here it is on the same.
      await succeed('mv', [`${disk.path}/pg/data/pg_wal`, `${disk.path}/pg/wal`]);
      symlinkSync('../wal', `${disk.path}/pg/data/pg_wal`);
      // The path of a guest that has this disk for its root.
      const [tablespace] = readdirSync(`${disk.path}/pg/data/pg_tblspc`);
      rmSync(`${disk.path}/pg/data/pg_tblspc/${tablespace}`);
      symlinkSync('/pg/far', `${disk.path}/pg/data/pg_tblspc/${tablespace}`);
    } finally {
      await disk.unmount();
    }
    await mark('linked');
    disk = await mount('again', false);
    try {
      await succeed('dd', [
        ...['if=/dev/urandom', `of=${disk.path}/${page.file}`, 'bs=1', `seek=${page.at}`, 'count=4000'],
        ...['conv=notrunc', 'status=none'],
      ]);
    } finally {
      await disk.unmount();
    }
    await mark('broken');

    const sqlite = { paths: ['/app.db'], assertions: [HotDatabase.assertion] };
    await appliance.post('/volumes/db/checks', { name: 'sqlite', kind: 'sqlite', settings: sqlite });

    const assertion =
      '[{"name":"price in range","sql":"select id from item where price > 100","database":"midmirror"}]';
    const role = ['--set', 'role=midmirror'];
    for (const args of [
      ['--name', 'pages', ...role],
      ['--name', 'prices', ...role, '--set', 'amcheck=none', '--set', `assertions=${assertion}`],
    ]) {
      const added = await appliance.mim('check', 'add', 'db', 'postgres', ...args);
      assert.equal(added.status, 0, added.stderr);
    }
    const said: Record<string, string> = {};
    for (const [check, at] of [
      ['pages', 'working'],
      ['prices', 'working'],
      ['prices', 'out-of-range'],
      ['pages', 'linked'],
      ['pages', 'broken'],
      ['pages', 'before'],
      ['sqlite', 'working'],
    ] as const) {
      const verdict = await certify(appliance, 'db', check, `mark:${at}`);
      said[`${check} ${at}`] = verdict.verdict;
      context.diagnostic(`${check} ${at}: ${verdict.verdict}: ${verdict.reason} ${verdict.output}`);
    }
    assert.deepEqual(said, {
      'pages working': 'good',
      'prices working': 'good',
      'prices out-of-range': 'bad',
      'pages linked': 'good',
      'pages broken': 'bad',
      'pages before': 'cannot-tell',
      'sqlite working': 'good',
    });
    // The walk turns at the first bad one, and knows which point is to be put back.
    const { job } = await appliance.post<{ job: ShownJob }>('/volumes/db/certifications', { check: 'pages' });
    const { end } = await ended(appliance, job.job);
    assert.equal(end?.kind, 'condemned');
    const { seq } = await appliance.get<{ seq: number }>('/volumes/db/resolve?at=mark:linked');
    assert.equal(end.lastGood?.seq, seq);
    assert.deepEqual(leftOf(`${folder}/data`), []);
    assert.deepEqual(await clonesOf(appliance), []);
  }));
