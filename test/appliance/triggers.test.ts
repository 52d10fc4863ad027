// What moves the MIM without anybody asking: interval, time of day, marks, a full journal; and retention by policy.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { type ApplianceProcess, withAppliance } from './appliance-process.ts';

const MIB = 1 << 20;
const WAIT_MS_MAX = 20_000;

interface View {
  mim: { seq: number };
  latest: { seq: number };
  snapshots: number;
}

/** Waits until the volume is as wanted; the appliance itself tells. */
async function until(
  appliance: ApplianceProcess,
  wanted: (view: View) => boolean,
  what: string,
): Promise<View> {
  const deadline = Date.now() + WAIT_MS_MAX;
  for (;;) {
    const view = await appliance.get<View>('/volumes/db');
    if (wanted(view)) return view;
    assert.ok(Date.now() < deadline, `${what}: ${JSON.stringify(view)}\n${appliance.output}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function write(client: NbdClient, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await client.write((i % 30) * MIB, Buffer.alloc(MIB, 1 + (i % 250)));
}

test('by interval: what is older than the window moves, in whole segments', () =>
  withAppliance({ MIM_SEGMENT_BYTES: '36MiB' }, async (appliance) => {
    const policy = { syncEverySeconds: 1, journalWindowSeconds: 0 };
    await appliance.post('/volumes', { name: 'db', sizeBytes: 32 * MIB, policy });
    const client = await connectNbd(appliance.uri('db'));
    await write(client, 50);
    await until(appliance, ({ mim }) => mim.seq >= 30, 'the first segment reaches the MIM');
    await client.close();
  }));

test('by marks: a mark of the kind that the policy names moves the MIM up to it', () =>
  withAppliance({}, async (appliance) => {
    await appliance.post('/volumes', {
      name: 'db',
      sizeBytes: 32 * MIB,
      policy: { syncAtMarks: ['application'] },
    });
    const client = await connectNbd(appliance.uri('db'));
    await write(client, 3);
    await appliance.post('/volumes/db/marks', { name: 'other', kind: 'bookmark' });
    await write(client, 2);
    await appliance.post('/volumes/db/marks', { name: 'consistent', kind: 'application' });
    await write(client, 1);
    const { latest } = await until(appliance, ({ mim }) => mim.seq === 5, 'the MIM stands at the mark');
    assert.equal(latest.seq, 6);
    await client.close();
  }));

test('by time of day, and the policy lets old snapshots go', () =>
  withAppliance({}, async (appliance) => {
    const keep = { keepLast: 2, keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepYearly: 0 };
    // Each second instead of each night.
    const policy = { syncAt: '* * * * * *', syncEverySeconds: 1, snapshotEverySeconds: 1, ...keep };
    await appliance.post('/volumes', { name: 'db', sizeBytes: 32 * MIB, policy });
    const client = await connectNbd(appliance.uri('db'));
    let made = 0;
    for (let round = 0; round < 5; round += 1) {
      await write(client, 1);
      made += 1;
      const wanted = made;
      await until(appliance, ({ mim }) => mim.seq === wanted, `the MIM follows to write ${wanted}`);
    }
    // Each sync has closed a snapshot; two are kept, and the open one.
    await until(appliance, ({ snapshots }) => snapshots <= 3, 'old snapshots are dropped');
    await client.close();
  }));

test('by space: a guest writes several times the journal and never waits for ever', () =>
  withAppliance({ MIM_SEGMENT_BYTES: '36MiB', MIM_JOURNAL_BYTES: '144MiB' }, async (appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: 32 * MIB });
    const client = await connectNbd(appliance.uri('db'));
    await write(client, 500);
    const { mim } = await appliance.get<View>('/volumes/db');
    assert.ok(mim.seq > 300, `the MIM has moved to write ${mim.seq}`);
    for (let i = 0; i < 20; i += 1) assert.equal((await client.read(i * MIB, 512))[0], 1 + ((480 + i) % 250));
    await client.close();
    assert.equal((await appliance.mim('verify', 'db')).status, 0);
  }));
