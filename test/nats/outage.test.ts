import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { ask, openNatsBus } from '@midmirror/bus';
import { openEmbeddedCatalog } from '@midmirror/catalog';
import { decodeDescriptors, Streams } from '@midmirror/events';
import { packedBatches } from '@midmirror/journal';
import { type NatsServer, startNats } from '@midmirror/local-servers';
import { nodeFiles } from '@midmirror/pool';
import { openServices, type Services, startServices, stopServices } from '../simulation/services.ts';

const BLOCK = 4096;
const BLOCKS = 256;

/** A volume behind all services, on a NATS server that comes and goes; and what it must hold. */
class World {
  readonly directory = mkdtempSync(`${tmpdir()}/mim-outage-`);
  readonly image = Buffer.alloc(BLOCKS * BLOCK);
  server!: NatsServer;
  services!: Services;
  volumeId = '';
  seq = 0;
  #nowNs = 1_700_000_000_000_000_000n;

  async start(): Promise<void> {
    this.server = await startNats({ directory: `${this.directory}/nats`, log: () => {} });
    await this.open();
    await startServices(this.services);
    const volume = { name: 'db', sizeBytes: BLOCKS * BLOCK, policy: null };
    this.volumeId = (await ask(this.services.bus, 'ingest.create-volume', volume)).volumeId;
  }

  async open(): Promise<void> {
    const { url } = this.server;
    this.services = await openServices({
      ...{ files: nodeFiles(), poolDirectory: `${this.directory}/pool` },
      openCatalog: () => openEmbeddedCatalog(`${this.directory}/catalog.db`),
      ...{ log: () => {}, reached: () => {} },
      openBus: (catalog) => openNatsBus({ url, name: 'test', catalog, log: () => {} }),
      clock: { nowNs: () => (this.#nowNs += 1000n) },
      ...{ segmentBytes: 256 << 10, journalBytesMax: 32 << 20, requestBytesMax: BLOCK },
      ...{ indexCacheBytes: 1 << 20, headMapBytesMax: 1 << 20 },
    });
  }

  /** Each is answered before the next. */
  async write(count: number): Promise<void> {
    const live = await this.services.ingest.open('db');
    for (let i = 0; i < count; i += 1) {
      this.seq += 1;
      const start = ((this.seq * 7) % BLOCKS) * BLOCK;
      const payload = Buffer.alloc(BLOCK, `write ${this.seq} `);
      payload.copy(this.image, start);
      await new Promise<void>((resolve, reject) => {
        live.device.submit({
          ...{ kind: 'write', startBytes: start, lengthBytes: BLOCK, fua: false },
          ...{ payload: [payload], payloadCount: 1 },
          complete: (errno) => (errno === 0 ? resolve() : reject(new Error(`refused with ${errno}`))),
        });
        live.device.kick();
      });
    }
    await live.release();
  }

  /** The newest point, by the index: what it knows came over the bus. */
  async check(): Promise<void> {
    const opened = await this.untilThere(() => this.services.mapping.open('db@latest'));
    const bytes = Buffer.alloc(this.image.length);
    await opened.device.read(0, bytes.length, bytes, 0);
    await opened.release();
    for (let at = 0; at < bytes.length; at += BLOCK)
      assert.ok(
        bytes.subarray(at, at + BLOCK).equals(this.image.subarray(at, at + BLOCK)),
        `block ${at / BLOCK}`,
      );
  }

  /** Who reads the stream from its start has every write of the segments that nobody was told of. */
  async checkStream(): Promise<void> {
    const { bus, catalog } = this.services;
    const { position } = await this.untilThere(() => ask(bus, 'ingest.publish', { volumeId: this.volumeId }));
    const heard = new Set<number>();
    const reading = bus.consume({
      stream: Streams.journal,
      after: 0,
      handler: async (message) => {
        for (const { batch } of packedBatches(decodeDescriptors(message).batches))
          for (let i = 0; i < batch.writeCount; i += 1) heard.add(batch.firstSeq + i);
      },
    });
    await reading.reached(position);
    await reading.stop();
    const told = await catalog.db
      .selectFrom('segment')
      .select((e) => e.fn.max('last_seq').as('seq'))
      .executeTakeFirst();
    for (let seq = (told?.seq ?? 0) + 1; seq <= this.seq; seq += 1) assert.ok(heard.has(seq), `write ${seq}`);
  }

  /** While the bus comes back, questions are refused as `unavailable`. */
  async untilThere<T>(act: () => Promise<T>): Promise<T> {
    await this.services.bus.ready();
    for (;;)
      try {
        return await act();
      } catch (error) {
        if ((error as { code?: string }).code !== 'unavailable') throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
  }

  async end(): Promise<void> {
    await stopServices(this.services);
    await this.server.kill();
    rmSync(this.directory, { recursive: true });
  }
}

test('guests write on while NATS is away, and all of it is known when it is back, its data kept or gone', async () => {
  const world = new World();
  await world.start();
  try {
    await world.write(100);
    await world.check();
    for (const forgets of [false, true, false, true]) {
      // A part of the active segment is published before.
      await world.check();
      await world.server.kill();
      await world.write(forgets ? 5 : 150);
      if (forgets) rmSync(`${world.directory}/nats`, { recursive: true });
      await world.write(10);
      await world.server.restart();
      await world.check();
      await world.checkStream();
      await world.write(20);
      await world.check();
    }
    const sync = { volumeId: world.volumeId, upToSeq: world.seq, closeSnapshot: true };
    assert.equal(
      (await world.untilThere(() => ask(world.services.bus, 'synchronizer.sync', sync))).toSeq,
      world.seq,
    );
    await world.check();
    assert.deepEqual(await world.services.bus.deadLetters(), []);
  } finally {
    await world.end();
  }
});

test('guests are served by a process that starts while NATS is away', async () => {
  const world = new World();
  await world.start();
  try {
    await world.write(100);
    await stopServices(world.services);
    await world.server.kill();
    rmSync(`${world.directory}/nats`, { recursive: true });
    await world.open();
    await world.services.ingest.start();
    await world.write(200);
    await world.server.restart();
    await world.services.mapping.start();
    await world.services.synchronizer.start();
    await world.check();
  } finally {
    await world.end();
  }
});
