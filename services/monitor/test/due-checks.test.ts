// Schedules of several volumes: one whose server is away keeps no other from its turn, and is said once.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError, wallClock } from '@midmirror/basis';
import { answer, openEmbeddedBus } from '@midmirror/bus';
import { type Catalog, toNs } from '@midmirror/catalog';
import { silent } from '@midmirror/telemetry';
import { withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { startSchedule } from '../core/due.ts';
import { Monitor } from '../monitor.ts';

const SCHEDULE = { kind: 'every', everyMs: 10_000 } as const;

async function addDue(catalog: Catalog, id: string): Promise<void> {
  const ns = toNs(0n);
  await catalog.db
    .insertInto('volume')
    .values({
      ...{ id, name: id, size_bytes: 4096, state: 'active', policy: '{}' },
      ...{ mim_seq: 0, mim_ns: ns, created_ns: ns },
    })
    .execute();
  await catalog.db
    .insertInto('volume_check')
    .values({
      ...{ volume_id: id, name: 'fsck', kind: 'fsck', settings: '{}', on_condemned: 'notify' },
      ...{ schedule: JSON.stringify(SCHEDULE), created_ns: ns },
      due: JSON.stringify(startSchedule(SCHEDULE, Date.now(), 0)),
    })
    .execute();
}

test('a volume whose server is away keeps no other from its turn', async () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-due-`);
  try {
    await withCatalog(async (catalog) => {
      const bus = openEmbeddedBus(catalog);
      const asked: string[] = [];
      const publishing = answer(bus, 'ingest.publish', async ({ volumeId }) => {
        asked.push(volumeId);
        if (volumeId === 'away') throw new MidmirrorError('unavailable', 'its server is away');
        throw new MidmirrorError('io', 'its server is there and is broken');
      });
      for (const id of ['away', 'there']) await addDue(catalog, id);
      const said: string[] = [];
      const monitor = new Monitor({
        ...{ catalog, bus, clock: wallClock(), telemetry: silent, stateDirectory: folder, webhook: null },
        log: (line) => void said.push(line),
        exportUri: () => assert.fail('nothing is checked here'),
        liveUri: () => assert.fail('nothing is put back here'),
      });
      await monitor.start();
      try {
        while (asked.filter((id) => id === 'there').length < 2) await pause(20);
      } finally {
        await monitor.stop();
        await publishing.stop();
        await bus.close();
      }
      assert.deepEqual(said.sort(), [
        'check fsck of away waits, though it is due: its server is away',
        'check fsck of there waits, though it is due: its server is there and is broken',
      ]);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
