// What the servers held is gone: NATS's directory deleted, PostgreSQL's database dropped. The pool has it all.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import pg from 'pg';
import { run } from '../appliance/appliance-process.ts';
import { type ClusterUnderTest, eventually, FailoverGuest, withCluster } from './cluster-under-test.ts';

const SIZE_BYTES = 4 << 20;
const SETTINGS = { MIM_SEGMENT_BYTES: '36MiB' };
const ANSWER_MS_MAX = 30_000;

interface Marked {
  name: string;
  model: Uint32Array;
}

async function mark(cluster: ClusterUnderTest, guest: FailoverGuest, name: string): Promise<Marked> {
  await cluster.mark('db', name);
  return { name, model: guest.model.slice() };
}

async function checkAll(cluster: ClusterUnderTest, guest: FailoverGuest, marks: Marked[]): Promise<void> {
  for (const { name, model } of marks)
    await eventually(`${name} is read`, ANSWER_MS_MAX, () =>
      guest.check(cluster.uri(`db@mark:${name}`), model, name),
    );
  await guest.check(cluster.uri('db'), guest.model, 'the live disk');
  await cluster.verify('db');
}

test("NATS's directory is deleted: guests write on, an open mirror reads on, all is known when it is back", () =>
  withCluster(SETTINGS, {}, async (cluster) => {
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    const guest = new FailoverGuest(cluster.uri('db'), SIZE_BYTES, new SeededRandom(3));
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    const marks = [await mark(cluster, guest, 'before')];
    const open = await connectNbd(cluster.uri('db@mark:before'));
    const wanted = await open.read(0, 1 << 20);
    await cluster.local.nats.kill();
    rmSync(`${cluster.folder}/data/nats`, { recursive: true });
    for (let i = 0; i < 50; i += 1) {
      await guest.write(16, ANSWER_MS_MAX);
      assert.ok((await open.read(0, 1 << 20)).equals(wanted));
    }
    await cluster.local.nats.restart();
    assert.equal(guest.reconnects, 0);
    marks.push(await mark(cluster, guest, 'after'));
    await eventually('a sync', ANSWER_MS_MAX, () =>
      cluster.post('/volumes/db/syncs', { closeSnapshot: true }),
    );
    assert.ok((await open.read(0, 1 << 20)).equals(wanted));
    await open.close();
    await checkAll(cluster, guest, marks);
    await guest.close();
  }));

test('all that serves no disk is killed at once: guests write on, and an open mirror is read on', () =>
  withCluster(SETTINGS, { restart: false }, async (cluster) => {
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    const guest = new FailoverGuest(cluster.uri('db'), SIZE_BYTES, new SeededRandom(5));
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    const marks = [await mark(cluster, guest, 'before')];
    const open = await connectNbd(cluster.uri('db@mark:before'));
    const wanted = await open.read(0, SIZE_BYTES);
    const { local } = cluster;
    await Promise.all([local.service('synchronizer').kill(), local.service('console').kill()]);
    await local.nats.kill();
    await local.postgres.kill();
    for (let i = 0; i < 50; i += 1) {
      await guest.write(16, ANSWER_MS_MAX);
      assert.ok((await open.read(0, SIZE_BYTES)).equals(wanted));
    }
    await local.nats.restart();
    await local.restartPostgres();
    await Promise.all([local.service('synchronizer').start(), local.service('console').start()]);
    marks.push(await mark(cluster, guest, 'after'));
    assert.equal(guest.reconnects, 0);
    assert.ok((await open.read(0, SIZE_BYTES)).equals(wanted));
    await open.close();
    await checkAll(cluster, guest, marks);
    await guest.close();
  }));

test("PostgreSQL's database is dropped: it is refused to start on nothing, and made again from the pool", () =>
  withCluster(SETTINGS, { restart: false }, async (cluster) => {
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    const guest = new FailoverGuest(cluster.uri('db'), SIZE_BYTES, new SeededRandom(4));
    const marks: Marked[] = [];
    for (const name of ['one', 'two', 'three']) {
      for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
      marks.push(await mark(cluster, guest, name));
      if (name === 'two') await cluster.post('/volumes/db/syncs', { closeSnapshot: true });
    }
    await guest.close();
    const { local } = cluster;
    for (const service of local.services.values()) await service.stop();
    const url = new URL(local.postgres.url);
    url.pathname = '/postgres';
    const client = new pg.Client({ connectionString: url.href });
    await client.connect();
    await client.query('DROP DATABASE midmirror WITH (FORCE)');
    await client.query('CREATE DATABASE midmirror');
    await client.end();
    await assert.rejects(local.service('ingest-1').start());
    assert.ok(
      cluster.lines.some((line) => /catalogue knows no volume/.test(line) && line.includes('ingest-1')),
    );
    assert.ok(cluster.lines.some((line) => /mim rebuild/.test(line)));
    const data = ['--data-dir', `${cluster.folder}/data`, '--postgres', local.postgres.url];
    const rebuilt = await run(process.execPath, ['services/mim/main.ts', 'rebuild', ...data]);
    assert.equal(rebuilt.status, 0, rebuilt.stdout + rebuilt.stderr);
    await Promise.all([...local.services.values()].map((service) => service.start()));
    for (let i = 0; i < 20; i += 1) await guest.write(16, ANSWER_MS_MAX);
    await checkAll(cluster, guest, marks);
    await guest.close();
  }));
