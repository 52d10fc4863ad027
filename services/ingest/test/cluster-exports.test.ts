// Disks of a cluster at an ingest that does not own them: where a name leads, what is waited for, what is refused.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import type { BlockDevice, ExportDirectory, OpenedExport } from '@midmirror/block-device';
import type { Catalog } from '@midmirror/catalog';
import { openEmbeddedCatalog } from '@midmirror/catalog';
import { serverUri, startNbdServer } from '@midmirror/nbd';
import { ClusterExports, type Peers } from '../cluster-exports.ts';
import type { Ingest } from '../ingest.ts';
import { PoolNames } from '../pool-names.ts';

const WAIT_MS = 300;

class FakePeers implements Peers {
  owner: ReturnType<Peers['ownerOf']> = null;
  index: { instance: string; nbd: string | null }[] = [];
  readonly #listeners = new Set<() => void>();

  nodes(): { instance: string; nbd: string | null }[] {
    return this.index;
  }
  ownerOf(): ReturnType<Peers['ownerOf']> {
    return this.owner;
  }
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** A server that has every name, and says which it was asked for. */
async function startServer(asked: string[]): ReturnType<typeof startNbdServer> {
  const device = {
    sizeBytes: 4096,
    readOnly: true,
    tryRead: () => false,
    read: async (_start: number, length: number, target: Uint8Array, at: number) =>
      void target.fill(7, at, at + length),
    flush: async () => {},
    allocation: async (_start: number, length: number) => [{ lengthBytes: length, hole: false }],
    submit: () => {},
    kick: () => {},
  } as BlockDevice;
  const directory: ExportDirectory = {
    open: async (name) => {
      asked.push(name);
      return { device, description: name, multiConn: true, release: () => {} };
    },
    list: async () => [],
  };
  return await startNbdServer({ listen: { host: '127.0.0.1', port: 0 }, directory });
}

interface World {
  exports: ClusterExports;
  peers: FakePeers;
  names: PoolNames;
  served: Set<string>;
  asked: string[];
  nbd: string;
}

async function inWorld(act: (world: World) => Promise<void>): Promise<void> {
  const asked: string[] = [];
  const server = await startServer(asked);
  const catalog = await openEmbeddedCatalog(':memory:');
  const row = { size_bytes: 4096, policy: 'null', created_ns: '0', mim_seq: 0, mim_ns: '0' };
  for (const [id, name, state] of [
    ['1', 'db', 'active'],
    ['2', 'half', 'creating'],
  ] as const)
    await catalog.db
      .insertInto('volume')
      .values({ id, name, state, ...row })
      .execute();
  const clone = { name: 'trial', id: '3', volume_id: '1', seq: 0, time_ns: '0', created_ns: '0' };
  await catalog.db.insertInto('clone').values(clone).execute();
  const served = new Set<string>();
  const ingest = {
    serves: (name: string) => served.has(name),
    open: async (name: string): Promise<OpenedExport> => {
      if (!served.has(name)) throw new MidmirrorError('not-found', `there is no volume "${name}"`);
      return { description: `${name} here` } as OpenedExport;
    },
  } as Ingest;
  const peers = new FakePeers();
  const names = new PoolNames(
    catalog,
    () => {},
    () => {},
  );
  await names.start();
  const exports = new ClusterExports(ingest, names, peers, WAIT_MS);
  try {
    await act({ exports, peers, names, served, asked, nbd: serverUri(server.address) });
  } finally {
    exports.close();
    await names.stop();
    await catalog.close();
    await server.close(0);
  }
}

const refusal = (code: string) => (error: unknown) => error instanceof MidmirrorError && error.code === code;

test('a volume of another ingest is asked for directly, a point and a clone of the mapping index', () =>
  inWorld(async ({ exports, peers, asked, nbd }) => {
    peers.owner = { node: 'other', nbd, self: false };
    peers.index = [{ instance: 'i', nbd }];
    for (const name of ['db', 'db@seq:1', 'trial']) await (await exports.open(name)).release();
    assert.deepEqual(asked, ['=db', 'db@seq:1', 'trial']);
  }));

test('what is served here is opened here; asked for directly, nothing else is', () =>
  inWorld(async ({ exports, peers, served, asked, nbd }) => {
    peers.owner = { node: 'other', nbd, self: false };
    await assert.rejects(exports.open('=db'), refusal('not-found'));
    served.add('db');
    assert.equal((await exports.open('db')).description, 'db here');
    assert.equal((await exports.open('=db')).description, 'db here');
    assert.deepEqual(asked, []);
  }));

test('names that there are not, or not yet, are refused at once', () =>
  inWorld(async ({ exports, peers, nbd }) => {
    peers.owner = { node: 'other', nbd, self: false };
    for (const name of ['nothing', 'half']) await assert.rejects(exports.open(name), refusal('not-found'));
    assert.deepEqual(
      (await exports.list()).map(({ name }) => name),
      ['db', 'trial'],
    );
  }));

test('a volume without an owner is waited for, for a while', () =>
  inWorld(async ({ exports, peers, served, nbd }) => {
    await assert.rejects(exports.open('db'), refusal('unavailable'));
    await assert.rejects(exports.open('db@seq:1'), refusal('unavailable'));
    const waiting = exports.open('db');
    peers.owner = { node: 'other', nbd, self: false };
    await (await waiting).release();
    peers.owner = { node: 'here', nbd: null, self: true };
    const opening = exports.open('db');
    served.add('db');
    assert.equal((await opening).description, 'db here');
  }));

test('a disk that is passed on is lost when its owner changes', () =>
  inWorld(async ({ exports, peers, nbd }) => {
    peers.owner = { node: 'other', nbd, self: false };
    const opened = await exports.open('db');
    peers.changed();
    assert.equal(opened.lost!.aborted, false);
    const lost = once(opened.lost!, 'abort');
    peers.owner = { node: 'third', nbd: 'nbd://127.0.0.1:1', self: false };
    peers.changed();
    await lost;
    await opened.release();
  }));

test('a point is read on while its server is silent, and lost when another one has taken its place', () =>
  inWorld(async ({ exports, peers, nbd }) => {
    peers.index = [{ instance: 'first', nbd }];
    const opened = await exports.open('db@seq:1');
    peers.index = [];
    peers.changed();
    assert.equal(opened.lost!.aborted, false);
    const lost = once(opened.lost!, 'abort');
    peers.index = [{ instance: 'second', nbd }];
    peers.changed();
    await lost;
    await opened.release();
  }));

test('known names are found while the catalogue is away, others are not said to be missing', async () => {
  const catalog = await openEmbeddedCatalog(':memory:');
  let away = false;
  const watched: Catalog = {
    ...catalog,
    get db() {
      if (away) throw new MidmirrorError('unavailable', 'no database answers');
      return catalog.db;
    },
  };
  const row = { size_bytes: 4096, policy: 'null', created_ns: '0', mim_seq: 0, mim_ns: '0' };
  await catalog.db
    .insertInto('volume')
    .values({ id: '1', name: 'db', state: 'active', ...row })
    .execute();
  const found: string[] = [];
  const lines: string[] = [];
  const names = new PoolNames(
    watched,
    (line) => lines.push(line),
    (id) => found.push(id),
  );
  try {
    await names.start();
    away = true;
    assert.deepEqual(await names.find('db'), { kind: 'volume', id: '1' });
    await assert.rejects(names.find('other'), refusal('unavailable'));
    await assert.rejects(names.find('other'), refusal('unavailable'));
    assert.equal(lines.length, 1);
    away = false;
    assert.equal(await names.find('other'), null);
    assert.deepEqual(new Set(found), new Set(['1']));
  } finally {
    await names.stop();
    await catalog.close();
  }
});
