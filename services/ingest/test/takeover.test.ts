// Two ingests on one pool: one takes a volume over while the other still believes that it is its own.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import type { OpenedExport } from '@midmirror/block-device';
import { ask, type Bus, openEmbeddedBus } from '@midmirror/bus';
import { type Catalog, openEmbeddedCatalog } from '@midmirror/catalog';
import { nodeFiles } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { silent } from '@midmirror/telemetry';
import { Ingest, type Owners } from '../ingest.ts';

const BLOCK = 4096;

interface Pool {
  directory: string;
  catalog: Catalog;
  bus: Bus;
}

async function onPool(act: (pool: Pool) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(`${tmpdir()}/mim-takeover-`);
  const catalog = await openEmbeddedCatalog(`${directory}/catalog.db`);
  const bus = openEmbeddedBus(catalog);
  try {
    await act({ directory, catalog, bus });
  } finally {
    await bus.close();
    await catalog.close();
    rmSync(directory, { recursive: true });
  }
}

/** What an ingest asks of those who say who owns what. */
class AskedOwners implements Owners {
  readonly asked: string[] = [];
  seek(volumeId: string): void {
    this.asked.push(`seek ${volumeId}`);
  }
  async create(volumeId: string): Promise<void> {
    this.asked.push(`create ${volumeId}`);
  }
  async forget(volumeId: string): Promise<void> {
    this.asked.push(`forget ${volumeId}`);
  }
}

function ingestOf(
  { directory, catalog, bus }: Pool,
  holder: string,
  monotonicMs: () => number,
  owners = new AskedOwners(),
): Ingest {
  const pause = async (ms: number): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, ms));
  };
  return new Ingest(
    `${directory}/pool`,
    {
      ...{ files: nodeFiles(), catalog, bus, log: () => {}, reached: () => {}, telemetry: silent },
      config: {
        ...{ syncIntervalMs: 50, segmentBytes: 256 << 10, requestBytesMax: BLOCK },
        ...{ journalBytesMax: 16 << 20, headMapBytesMax: 1 << 20 },
      },
      clock: { nowNs: () => BigInt(Date.now()) * 1_000_000n },
      pages: new PageCache(catalog.db, 1 << 20),
      writer: { holder, alone: false, monotonicMs, pause },
      readerLeaseMs: 5000,
    },
    owners,
  );
}

function write({ device }: OpenedExport, block: number, fill: number): Promise<number> {
  return new Promise((resolve) => {
    device.submit({
      ...{ kind: 'write', startBytes: block * BLOCK, lengthBytes: BLOCK, fua: true },
      ...{ payload: [new Uint8Array(BLOCK).fill(fill)], payloadCount: 1, complete: resolve },
    });
    device.kick();
  });
}

async function firstByte({ device }: OpenedExport, block: number): Promise<number> {
  const bytes = new Uint8Array(BLOCK);
  await device.read(block * BLOCK, BLOCK, bytes, 0);
  return bytes[0]!;
}

test('the one that takes a volume over has all that was answered; the other hangs up and answers nothing more', () =>
  onPool(async (pool) => {
    const before = ingestOf(pool, 'before', () => performance.now());
    const after = ingestOf(pool, 'after', () => performance.now());
    await before.start();
    const { volumeId } = await ask(pool.bus, 'ingest.create-volume', {
      ...{ name: 'db', sizeBytes: 1 << 20, policy: null },
    });
    const guest = await before.open('db');
    for (let i = 0; i < 100; i += 1) assert.equal(await write(guest, i % 16, i), 0);
    await after.start();
    await after.take(volumeId);
    assert.notEqual(await write(guest, 0, 255), 0);
    // It may have seen so by itself before.
    if (!guest.lost!.aborted) await once(guest.lost!, 'abort');
    assert.equal(before.serves('db') && (await before.open('db').then(() => true)), false);
    const again = await after.open('db');
    for (let i = 84; i < 100; i += 1) assert.equal(await firstByte(again, i % 16), i);
    assert.equal(await write(again, 0, 7), 0);
    assert.equal((await ask(pool.bus, 'ingest.publish', { volumeId })).seq, 101);
    await after.stop();
    await before.stop();
  }));

test('a gap goes with its volume: it is open for the next owner, who closes it', () =>
  onPool(async (pool) => {
    const before = ingestOf(pool, 'before', () => performance.now());
    const after = ingestOf(pool, 'after', () => performance.now());
    await before.start();
    const { volumeId } = await ask(pool.bus, 'ingest.create-volume', {
      ...{ name: 'db', sizeBytes: 1 << 20, policy: null },
    });
    const guest = await before.open('db');
    for (let i = 0; i < 3; i += 1) assert.equal(await write(guest, i, 1), 0);
    const opened = await ask(pool.bus, 'ingest.open-gap', { volumeId, behindMs: 0, reason: 'x' });
    assert.equal(opened.gap.fromSeq, 3);
    assert.equal(await write(guest, 0, 2), 0);
    await after.start();
    await after.take(volumeId);
    // It lets go when it has seen so, and its answers end with it.
    await before.lose(volumeId);
    const asked = { volumeId, behindMs: 0, reason: null };
    assert.deepEqual(await ask(pool.bus, 'ingest.open-gap', asked), opened);
    await assert.rejects(
      ask(pool.bus, 'ingest.mark', { volumeId, name: 'm', kind: 'bookmark' }),
      (error: unknown) => error instanceof MidmirrorError && error.code === 'conflict',
    );
    const again = await after.open('db');
    assert.equal(await write(again, 1, 2), 0);
    const { gap } = await ask(pool.bus, 'ingest.close-gap', { volumeId });
    assert.deepEqual([gap?.number, gap?.fromSeq, gap?.toSeq], [1, 3, 5]);
    await ask(pool.bus, 'ingest.mark', { volumeId, name: 'm', kind: 'bookmark' });
    await after.stop();
    await before.stop();
  }));

test('one whose clock stood still while it was displaced puts no row into the catalogue', () =>
  onPool(async (pool) => {
    let stopped: number | null = null;
    const before = ingestOf(pool, 'before', () => stopped ?? performance.now());
    await before.start();
    const { volumeId } = await ask(pool.bus, 'ingest.create-volume', {
      ...{ name: 'db', sizeBytes: 1 << 20, policy: null },
    });
    const guest = await before.open('db');
    assert.equal(await write(guest, 0, 1), 0);
    // It looks at the claims no more, as far as it can tell it has just done so.
    stopped = performance.now();
    const mark = (name: string) =>
      ask(pool.bus, 'ingest.mark', { volumeId, name, kind: 'bookmark' as const });
    await mark('mine');
    // Of the claims alone: who answers requests is still the one before.
    await pool.catalog.db.updateTable('volume').set({ epoch: 9 }).where('id', '=', volumeId).execute();
    await assert.rejects(
      mark('late'),
      (error: unknown) =>
        error instanceof MidmirrorError && error.code === 'unavailable' && /taken over/.test(error.message),
    );
    assert.ok(guest.lost!.aborted);
    const rows = await pool.catalog.db.selectFrom('mark').select('name').execute();
    assert.deepEqual(rows, [{ name: 'mine' }]);
    await before.stop();
  }));

test('volumes of a cluster are sought, made ones are owned first, and gone ones forgotten', () =>
  onPool(async (pool) => {
    const owners = new AskedOwners();
    const ingest = ingestOf(pool, 'one', () => performance.now(), owners);
    await ingest.start();
    const make = (name: string) =>
      ask(pool.bus, 'ingest.create-volume', { name, sizeBytes: 1 << 20, policy: null });
    const { volumeId } = await make('db');
    await assert.rejects(make('db'), /db/);
    assert.equal(owners.asked.length, 3);
    assert.deepEqual(
      owners.asked.slice(0, 2).map((asked) => asked.split(' ')[0]),
      ['create', 'create'],
    );
    assert.equal(owners.asked[2], owners.asked[1]!.replace('create', 'forget'));
    const next = new AskedOwners();
    const other = ingestOf(pool, 'two', () => performance.now(), next);
    await other.start();
    assert.deepEqual(next.asked, [`seek ${volumeId}`]);
    assert.equal(other.serves('db'), false);
    await ingest.stop();
    // A crash came while it was being made: whoever takes it removes what is there.
    await pool.catalog.db.updateTable('volume').set({ state: 'creating' }).execute();
    await other.take(volumeId);
    assert.deepEqual(next.asked, [`seek ${volumeId}`, `forget ${volumeId}`]);
    assert.deepEqual(await pool.catalog.db.selectFrom('volume').select('id').execute(), []);
    await other.stop();
  }));
