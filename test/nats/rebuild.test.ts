// The database of a cluster is gone: the catalogue made again on PostgreSQL from the pool alone (I7), with the events
// of before still on NATS, or gone too.
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { rebuildPostgresCatalog, verifyVolume } from '@midmirror/audit';
import { ask, openNatsBus } from '@midmirror/bus';
import { openPostgresCatalog } from '@midmirror/catalog';
import { type NatsServer, startNats } from '@midmirror/local-servers';
import { nodeFiles, type PoolFiles } from '@midmirror/pool';
import {
  dropDatabase,
  emptyDatabase,
  execute,
  testPostgres,
} from '../../libs/catalog/test/postgres-databases.ts';
import { type Ran, run } from '../appliance/appliance-process.ts';
import { openServices, type Services, startServices, stopServices } from '../simulation/services.ts';

const BLOCK = 4096;
const BLOCKS = 128;

class World {
  readonly directory = mkdtempSync(`${tmpdir()}/mim-rebuild-`);
  nats!: NatsServer;
  url = '';
  services!: Services;
  #open = false;
  volumeId = '';
  readonly writes: number[] = [];
  /** What must be there by name, and as of which write. */
  readonly points = new Map<string, number>();
  #nowNs = 1_700_000_000_000_000_000n;

  async start(): Promise<void> {
    this.nats = await startNats({ directory: `${this.directory}/nats`, log: () => {} });
    this.url = await emptyDatabase();
    await this.open();
    const volume = { name: 'db', sizeBytes: BLOCKS * BLOCK, policy: null };
    this.volumeId = (await ask(this.services.bus, 'ingest.create-volume', volume)).volumeId;
  }

  async open(): Promise<void> {
    const { url } = this.nats;
    this.services = await openServices({
      ...{ files: nodeFiles(), poolDirectory: `${this.directory}/pool`, log: () => {}, reached: () => {} },
      openCatalog: () => openPostgresCatalog(this.url),
      openBus: (catalog) => openNatsBus({ url, name: 'test', catalog, log: () => {} }),
      clock: { nowNs: () => (this.#nowNs += 1000n) },
      ...{ segmentBytes: 256 << 10, journalBytesMax: 32 << 20, requestBytesMax: BLOCK },
      ...{ indexCacheBytes: 1 << 20, headMapBytesMax: 1 << 20 },
    });
    this.#open = true;
    await this.services.bus.ready();
    await startServices(this.services);
  }

  async close(): Promise<void> {
    this.#open = false;
    await stopServices(this.services);
  }

  async write(count: number): Promise<void> {
    const live = await this.services.ingest.open('db');
    for (let i = 0; i < count; i += 1) {
      const block = (this.writes.length * 7) % BLOCKS;
      this.writes.push(block);
      await new Promise<void>((resolve, reject) => {
        live.device.submit({
          ...{ kind: 'write', startBytes: block * BLOCK, lengthBytes: BLOCK, fua: false },
          ...{ payload: [contentOf(this.writes.length)], payloadCount: 1 },
          complete: (errno) => (errno === 0 ? resolve() : reject(new Error(`refused with ${errno}`))),
        });
        live.device.kick();
      });
    }
    await live.release();
  }

  async mark(name: string): Promise<void> {
    await ask(this.services.bus, 'ingest.mark', { volumeId: this.volumeId, name, kind: 'bookmark' });
    this.points.set(`db@mark:${name}`, this.writes.length);
  }

  /** A snapshot of all that is written. */
  async snapshot(): Promise<void> {
    const { volumeId } = this;
    await ask(this.services.bus, 'synchronizer.sync', { volumeId, upToSeq: null, closeSnapshot: true });
    this.points.set(`db@seq:${this.writes.length}`, this.writes.length);
  }

  async clone(name: string, at: string): Promise<void> {
    await ask(this.services.bus, 'mapping-index.create-clone', { volumeId: this.volumeId, at, name });
    this.points.set(name, this.points.get(`db@${at}`)!);
  }

  async check(): Promise<void> {
    const { mapping, catalog } = this.services;
    const newest = this.writes.length;
    const { mim_seq } = await catalog.db
      .selectFrom('volume')
      .select('mim_seq')
      .where('id', '=', this.volumeId)
      .executeTakeFirstOrThrow();
    const window = [mim_seq, mim_seq + 1, newest - 1].filter((seq) => seq >= mim_seq && seq <= newest);
    const all = new Map([
      ...this.points,
      ['db@latest', newest] as const,
      ...window.map((seq) => [`db@seq:${seq}`, seq] as const),
    ]);
    for (const [name, seq] of all) {
      const opened = await mapping.open(name).catch((cause: unknown) => {
        throw new Error(`${name} can't be opened`, { cause });
      });
      const bytes = Buffer.alloc(BLOCKS * BLOCK);
      await opened.device.read(0, bytes.length, bytes, 0);
      await opened.release();
      assert.ok(bytes.equals(this.image(seq)), `${name} is as of write ${seq}`);
    }
    const pool = `${this.directory}/pool`;
    const report = await verifyVolume(nodeFiles(), catalog, pool, this.volumeId, () => {});
    assert.deepEqual(report.problems, []);
  }

  image(seq: number): Buffer {
    const image = Buffer.alloc(BLOCKS * BLOCK);
    for (const [i, block] of this.writes.slice(0, seq).entries()) contentOf(i + 1).copy(image, block * BLOCK);
    return image;
  }

  /** The same name, as an operator would make it. */
  async loseDatabase(): Promise<void> {
    await dropDatabase(this.url);
    await execute((await testPostgres()).url, `create database ${new URL(this.url).pathname.slice(1)}`);
  }

  rebuild(...args: string[]): Promise<Ran> {
    return run(process.execPath, ['services/mim/main.ts', 'rebuild', '--data-dir', this.directory, ...args], {
      env: { MIM_POSTGRES_URL: this.url },
    });
  }

  async end(): Promise<void> {
    if (this.#open) await this.close();
    await this.nats.kill();
    await dropDatabase(this.url);
    rmSync(this.directory, { recursive: true });
  }
}

function contentOf(seq: number): Buffer {
  return Buffer.alloc(BLOCK, `write ${seq} `);
}

test('the database is dropped and made anew: every point is there again, whatever NATS remembers', async () => {
  const world = new World();
  await world.start();
  try {
    await world.write(90);
    await world.mark('monday');
    await world.write(40);
    await world.snapshot();
    await world.write(80);
    await world.clone('copy', 'mark:monday');
    for (const forgets of [false, true, false]) {
      await world.mark(`round${world.writes.length}`);
      await world.write(50);
      await world.snapshot();
      await world.write(100);
      await world.mark(`newest${world.writes.length}`);
      await world.write(20);
      await world.check();
      await world.close();
      await world.loseDatabase();
      if (forgets) {
        await world.nats.kill();
        rmSync(`${world.directory}/nats`, { recursive: true });
        await world.nats.restart();
      }
      const made = await world.rebuild();
      assert.equal(made.status, 0, made.stdout + made.stderr);
      assert.match(
        made.stdout,
        /^Volume db: the MIM at write \d+, \d+ snapshots, \d+ marks\.\nClone copy\.\n/,
      );
      await world.open();
      await world.check();
    }
    await world.snapshot();
    await world.check();
    const { volumeId } = world;
    const { drops } = await ask(world.services.bus, 'synchronizer.retention', { volumeId, dryRun: true });
    assert.ok(Array.isArray(drops));
    assert.deepEqual(await world.services.bus.deadLetters(), []);
    await world.close();
  } finally {
    await world.end();
  }
});

test('a database in use, one that is not empty and one that is not there are refused, unchanged', async () => {
  const world = new World();
  await world.start();
  try {
    await world.write(30);
    const connected = await world.rebuild();
    assert.equal(connected.status, 1);
    assert.match(
      connected.stderr,
      /services are connected to the database test_\d+ \(\d+ connections\)\n {2}stop every/,
    );
    await world.close();
    const filled = await world.rebuild();
    assert.equal(filled.status, 1);
    assert.match(
      filled.stderr,
      /the database test_\d+ is not empty: its table "volume" has rows\n.*createdb.*dropdb/,
    );
    const other = new URL(world.url);
    other.pathname = '/nothing';
    const missing = await world.rebuild('--postgres', other.href);
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /"nothing" does not exist\n {2}make the database first/);
    const wrong = await world.rebuild('--postgres', 'mysql://host/db');
    assert.equal(wrong.status, 2);
    for (const { stderr } of [connected, filled, missing, wrong])
      assert.ok(!stderr.includes(other.password), 'no message holds the password');
    await world.open();
    await world.check();
    await world.close();
    // The index alone is made again in the database that is there.
    const index = await world.rebuild('--index');
    assert.equal(index.status, 0, index.stdout + index.stderr);
    assert.match(index.stdout, /^Volume db: \d+ runs with \d+ extents\./);
    await world.open();
    await world.check();
    await world.close();
  } finally {
    await world.end();
  }
});

test('a rebuild whose database fails half-way leaves it empty; folders that are copies are refused', async () => {
  const world = new World();
  await world.start();
  const files = nodeFiles();
  try {
    await world.write(30);
    await world.snapshot();
    const second = { name: 'shop', sizeBytes: BLOCKS * BLOCK, policy: null };
    await ask(world.services.bus, 'ingest.create-volume', second);
    await world.close();
    await world.loseDatabase();
    const pool = `${world.directory}/pool`;
    const admin = (await testPostgres()).url;
    let listed = 0;
    const failing: PoolFiles = {
      ...files,
      list: async (path) => {
        // The first volume's rows are there, not yet committed.
        if (path.endsWith('/backward') && ++listed === 2)
          await execute(
            admin,
            `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'midmirror rebuild'`,
          );
        return await files.list(path);
      },
    };
    await assert.rejects(rebuildPostgresCatalog(failing, pool, world.url), { code: 'unavailable' });
    assert.equal(listed, 2);
    const left = await execute(
      world.url,
      'select (select count(*) from volume) + (select count(*) from run) as n',
    );
    assert.equal(Number(left[0]!['n']), 0);

    cpSync(`${pool}/volumes/${world.volumeId}`, `${pool}/volumes/copied`, { recursive: true });
    const { volumes, refused } = await rebuildPostgresCatalog(files, pool, world.url);
    assert.deepEqual(volumes.map(({ name }) => name).toSorted(), ['db', 'shop']);
    assert.deepEqual(
      refused.map(({ where }) => where),
      [`${pool}/volumes/copied`],
    );
    assert.match(refused[0]!.what, new RegExp(`its id is ${world.volumeId}`));
    rmSync(`${pool}/volumes/copied`, { recursive: true });
    await world.open();
    await world.check();
    await world.close();
  } finally {
    await world.end();
  }
});
