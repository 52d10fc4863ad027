// Moments in mid-write, of a guest that has its disk mounted, checked by an appliance of a user who may mount nothing: the
// journal of the file system is replayed in a copy, and databases recover there.
import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { test } from 'node:test';
import { startPostgres } from '@midmirror/local-servers';
import pg from 'pg';
import { NOBODY, succeed, withAppliance, withFolder } from '../appliance/appliance-process.ts';
import { MountedDisk } from '../replicator/mounted-disk.ts';
import { certify, clonesOf, leftOf } from './checked-volume.ts';
import { HotDatabase } from './hot-database.ts';

const SETTINGS = {
  max_wal_size: '48MB',
  min_wal_size: '32MB',
  shared_buffers: '16MB',
  max_connections: '20',
};

test('databases in mid-write recover without root', (context) =>
  withFolder((mounts) =>
    withAppliance(
      {},
      async (appliance, folder) => {
        chmodSync(mounts, 0o755);
        await appliance.post('/volumes', { name: 'db', sizeBytes: 160 << 20 });
        const disk = await MountedDisk.mount(mounts, 'disk', appliance.uri('db'), {
          retrying: false,
          format: true,
        });
        const mark = (name: string) => appliance.post('/volumes/db/marks', { name });
        try {
          const log = (line: string): void => context.diagnostic(line);
          const server = await startPostgres({ directory: `${disk.path}/pg`, log, settings: SETTINGS });
          const database = new HotDatabase(`${disk.path}/app.db`);
          try {
            const client = new pg.Client(server.url);
            await client.connect();
            await client.query('create table item (id int primary key, price int not null)');
            await client.query('insert into item select i, i % 50 from generate_series(1, 20000) i');
            await client.query('checkpoint');
            await succeed('sync', ['-f', disk.path]);
            await mark('quiet');
            database.begin();
            await client.query('update item set price = price + 1 where id % 7 = 0');
            // Its pages alone: that there is a journal to it, only the journal of the file system says.
            await succeed('sync', ['-d', `${disk.path}/app.db`]);
            await mark('working');
            await client.query('update item set price = 1000 where id = 1234');
            await mark('out-of-range');
            await client.end();
          } finally {
            database.end();
            await server.stop();
          }
        } finally {
          await disk.unmount();
        }
        const add = (kind: string, name: string, settings: object): Promise<unknown> =>
          appliance.post('/volumes/db/checks', { name, kind, settings });
        const sql = 'select id from item where price > 100';
        const postgres = { role: 'midmirror', amcheck: 'none', dataDirectory: '/pg/data' };
        await add('postgres', 'prices', {
          ...postgres,
          assertions: [{ name: 'price in range', sql, database: 'midmirror' }],
        });
        await add('postgres', 'elsewhere', { ...postgres, dataDirectory: '/srv' });
        await add('sqlite', 'sqlite', { paths: ['/app.db'], assertions: [HotDatabase.assertion] });
        await add('fsck', 'fsck', {});
        for (const [check, at, verdict, words] of [
          ['fsck', 'working', 'good', /copied/],
          ['sqlite', 'quiet', 'good', /copied out by debugfs[\s\S]*\/app\.db: sound/],
          ['sqlite', 'working', 'good', /\/app\.db: sound/],
          [
            'prices',
            'working',
            'good',
            /copied out by debugfs[\s\S]*PostgreSQL \d+ in \/pg\/data\nrecovered/,
          ],
          ['prices', 'out-of-range', 'bad', /price in range is violated:\n\s*1234/],
          [
            'elsewhere',
            'working',
            'cannot-tell',
            /there is no PostgreSQL in \/srv; the setting dataDirectory/,
          ],
        ] as const) {
          const found = await certify(appliance, 'db', check, `mark:${at}`);
          assert.equal(found.verdict, verdict, `${check} at ${at}: ${JSON.stringify(found)}`);
          assert.match(found.output, words);
        }
        assert.deepEqual(leftOf(`${folder}/data`), []);
        assert.deepEqual(await clonesOf(appliance), []);
      },
      NOBODY,
    ),
  ));
