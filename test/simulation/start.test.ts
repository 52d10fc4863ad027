import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { ask } from '@midmirror/bus';
import { runsOf } from '@midmirror/catalog';
import { Streams } from '@midmirror/events';
import { nodeFiles } from '@midmirror/pool';
import { catalogKinds, catalogStorage } from '../../libs/catalog/test/with-catalog.ts';
import { openServices, startServices, stopServices } from './services.ts';

const BLOCK = 4096;
const WRITES = 300;

// It died between sealing a segment and publishing its descriptors: only the segment's end is told of, at the start.
for (const kind of catalogKinds)
  test(`${kind}: what an earlier process sealed and did not publish is known when the services have started`, async () => {
    const storage = await catalogStorage(kind);
    const directory = mkdtempSync(`${tmpdir()}/mim-start-`);
    let nowNs = 1_700_000_000_000_000_000n;
    const open = () =>
      openServices({
        ...{ files: nodeFiles(), poolDirectory: `${directory}/pool`, openCatalog: storage.open },
        ...{ clock: { nowNs: () => (nowNs += 1000n) }, log: () => {}, reached: () => {} },
        ...{
          segmentBytes: 256 << 10,
          journalBytesMax: 16 << 20,
          requestBytesMax: BLOCK,
          indexCacheBytes: 1 << 20,
          headMapBytesMax: 1 << 20,
        },
      });
    const before = await open();
    await before.ingest.start();
    const { volumeId } = await ask(before.bus, 'ingest.create-volume', {
      ...{ name: 'db', sizeBytes: WRITES * BLOCK, policy: null },
    });
    const live = await before.ingest.open('db');
    const answers = Array.from(
      { length: WRITES },
      (_, i) =>
        new Promise<void>((resolve, reject) => {
          live.device.submit({
            ...{ kind: 'write', startBytes: i * BLOCK, lengthBytes: BLOCK, fua: false },
            ...{ payload: [new Uint8Array(BLOCK).fill(1 + (i % 255))], payloadCount: 1 },
            complete: (errno) => (errno === 0 ? resolve() : reject(new Error(`refused with ${errno}`))),
          });
          live.device.kick();
        }),
    );
    await Promise.all(answers);
    await live.release();
    await before.ingest.stop();
    await before.catalog.db.deleteFrom('message').where('stream', '=', Streams.journal).execute();
    await before.bus.close();
    await before.catalog.close();

    const after = await open();
    try {
      await startServices(after);
      const runs = await runsOf(after.catalog.db, volumeId, 'forward');
      const segments = await after.catalog.db
        .selectFrom('segment')
        .select('segment')
        .orderBy('segment')
        .execute();
      assert.deepEqual(
        runs.map((run) => run.source),
        segments.map((row) => row.segment),
        'a run of each sealed segment',
      );
      const opened = await after.mapping.open(`db@seq:${WRITES}`);
      const bytes = Buffer.alloc(WRITES * BLOCK);
      await opened.device.read(0, bytes.length, bytes, 0);
      for (let i = 0; i < WRITES; i += 1) assert.equal(bytes[i * BLOCK], 1 + (i % 255), `block ${i}`);
      await opened.release();
    } finally {
      await stopServices(after);
      await storage.remove();
      rmSync(directory, { recursive: true });
    }
  });
