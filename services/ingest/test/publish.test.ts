import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { wallClock } from '@midmirror/basis';
import { ask, openEmbeddedBus } from '@midmirror/bus';
import { openEmbeddedCatalog } from '@midmirror/catalog';
import { decodeDescriptors, eventOf, Streams } from '@midmirror/events';
import { packedBatches } from '@midmirror/journal';
import { nodeFiles, soleWriter } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { silent } from '@midmirror/telemetry';
import { ingestDefaults } from '../config.ts';
import { Ingest } from '../ingest.ts';

const SEGMENTS = 8;
const SEGMENT_BYTES = 256 << 10;
const WRITE_BYTES = 4096;
const SEGMENT_WRITES = SEGMENT_BYTES / WRITE_BYTES;

// Who has heard of a segment's end and has not stored its run yet has its descriptors: else a point that is opened
// then would lack writes.
test('all descriptors of a segment are published before it is told that it is sealed', async () => {
  const directory = mkdtempSync(`${tmpdir()}/mim-ingest-`);
  const catalog = await openEmbeddedCatalog(`${directory}/catalog.db`);
  const bus = openEmbeddedBus(catalog);
  let sealedSoFar = 0;
  const sealed = new EventEmitter();
  const publishIn = bus.publishIn.bind(bus);
  bus.publishIn = async (tx, stream, subject, envelope) => {
    // While a segment is told of, the next one is sealed.
    if (subject.endsWith('segment-sealed') && sealedSoFar < SEGMENTS) await once(sealed, 'one');
    await publishIn(tx, stream, subject, envelope);
  };
  const reached = (place: string): void => {
    if (place !== 'sealed') return;
    sealedSoFar += 1;
    sealed.emit('one');
  };
  let nowNs = 1_700_000_000_000_000_000n;
  const config = {
    ...{ syncIntervalMs: 3_600_000, segmentBytes: SEGMENT_BYTES, requestBytesMax: WRITE_BYTES },
    journalBytesMax: 4 * SEGMENTS * SEGMENT_BYTES,
    headMapBytesMax: 1 << 20,
  };
  const ingest = new Ingest(`${directory}/pool`, {
    ...{ files: nodeFiles(), catalog, bus, config, reached, log: () => {}, telemetry: silent },
    clock: { nowNs: () => (nowNs += 1000n) },
    pages: new PageCache(catalog.db, 1 << 20),
    writer: soleWriter(),
    readerLeaseMs: 5000,
  });
  try {
    await ingest.start();
    await ask(bus, 'ingest.create-volume', { name: 'db', sizeBytes: 1 << 20, policy: null });
    const opened = await ingest.open('db');
    const write = (i: number): Promise<void> =>
      new Promise((resolve, reject) => {
        opened.device.submit({
          ...{ kind: 'write', startBytes: (i % 256) * WRITE_BYTES, lengthBytes: WRITE_BYTES, fua: false },
          ...{ payload: [new Uint8Array(WRITE_BYTES).fill(i)], payloadCount: 1 },
          complete: (errno) => (errno === 0 ? resolve() : reject(new Error(`refused with ${errno}`))),
        });
      });
    for (let i = 0; sealedSoFar < SEGMENTS; ) {
      // Not so fast that the ring is full before anything is sealed.
      while (i > (sealedSoFar + 2) * SEGMENT_WRITES) await once(sealed, 'one');
      const burst = Array.from({ length: 8 }, () => write(i++));
      opened.device.kick();
      await Promise.all(burst);
    }
    await opened.release();
    await ingest.stop();
    const messages = await catalog.db.selectFrom('message').selectAll().orderBy('position').execute();
    const published = new Map<number, number>();
    let told = 0;
    for (const row of messages) {
      const message = { ...row, headers: JSON.parse(row.headers) as Record<string, string> };
      if (row.stream === Streams.journal) {
        for (const { batch } of packedBatches(decodeDescriptors(message).batches))
          published.set(batch.segment, batch.firstSeq + batch.writeCount - 1);
        continue;
      }
      const event = eventOf(message);
      if (event.type !== 'segment.sealed') continue;
      const { segment, lastSeq } = event.data;
      assert.equal(published.get(segment), lastSeq, `the last write of segment ${segment} comes first`);
      told += 1;
    }
    assert.ok(told >= SEGMENTS, `${told} segments are told of`);
  } finally {
    await bus.close();
    await catalog.close();
    rmSync(directory, { recursive: true });
  }
});

test('what becomes durable is published at once, and what follows after a rest, in one message', async (t) => {
  const directory = mkdtempSync(`${tmpdir()}/mim-ingest-`);
  const catalog = await openEmbeddedCatalog(`${directory}/catalog.db`);
  const bus = openEmbeddedBus(catalog);
  const published: { firstSeq: number; lastSeq: number }[] = [];
  const told = new EventEmitter();
  const publish = bus.publish.bind(bus);
  bus.publish = async (stream, subject, envelope) => {
    const done = await publish(stream, subject, envelope);
    const { firstSeq, lastSeq } = decodeDescriptors(envelope);
    published.push({ firstSeq, lastSeq });
    told.emit('one');
    return done;
  };
  const ingest = new Ingest(`${directory}/pool`, {
    ...{ files: nodeFiles(), catalog, bus, reached: () => {}, log: () => {}, telemetry: silent },
    config: { ...ingestDefaults, syncIntervalMs: 3_600_000, segmentBytes: 36 << 20 },
    clock: wallClock(),
    pages: new PageCache(catalog.db, 1 << 20),
    writer: soleWriter(),
    readerLeaseMs: 5000,
  });
  try {
    await ingest.start();
    await ask(bus, 'ingest.create-volume', { name: 'db', sizeBytes: 1 << 20, policy: null });
    const { device, release } = await ingest.open('db');
    // From here on no time passes but by `tick`.
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const flushed = async (): Promise<void> => {
      device.submit({
        ...{ kind: 'write', startBytes: 0, lengthBytes: WRITE_BYTES, fua: false },
        ...{ payload: [new Uint8Array(WRITE_BYTES)], payloadCount: 1, complete: () => {} },
      });
      device.kick();
      await device.flush();
    };
    const first = once(told, 'one');
    await flushed();
    await first;
    for (let i = 0; i < 5; i += 1) await flushed();
    assert.deepEqual(published, [{ firstSeq: 1, lastSeq: 1 }]);
    const second = once(told, 'one');
    t.mock.timers.tick(100);
    await second;
    assert.deepEqual(published.slice(1), [{ firstSeq: 2, lastSeq: 6 }]);
    t.mock.timers.reset();
    await release();
  } finally {
    await ingest.stop();
    await bus.close();
    await catalog.close();
    rmSync(directory, { recursive: true });
  }
});
