// The real process killed with SIGKILL: at each named place of ingest and of a sync, and at random moments under
// load. After the restart nothing answered is missing (I1), what is there is a prefix (I2), every point reads as
// it was (I3), and verify finds nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { ApplianceProcess, withFolder } from './appliance-process.ts';
import { checkPoint, Guest, GUEST_BYTES } from './guest.ts';

const PLACES = [
  ...['planned', 'saved', 'prepared', 'switched', 'applied', 'told', 'recycled'].map(
    (step) => `sync:${step}`,
  ),
  ...['durable', 'sealed', 'published', 'recycling', 'recycled'].map((place) => `journal:${place}`),
];

interface VolumeView {
  latest: { seq: number };
  mim: { seq: number };
}

async function checkAll(
  appliance: ApplianceProcess,
  guest: Guest,
  marks: readonly { name: string; seq: number }[],
): Promise<void> {
  const { latest, mim } = await appliance.get<VolumeView>('/volumes/db');
  guest.survived(latest.seq);
  await checkPoint(appliance.uri('db'), guest, latest.seq);
  await checkPoint(appliance.uri(`db@seq:${mim.seq}`), guest, mim.seq);
  const between = mim.seq + guest.random.below(latest.seq - mim.seq + 1);
  await checkPoint(appliance.uri(`db@seq:${between}`), guest, between);
  for (const { name, seq } of marks) await checkPoint(appliance.uri(`db@mark:${name}`), guest, seq);
  const { snapshots } = await appliance.get<{ snapshots: { snapshot: number; seq: number }[] }>(
    '/volumes/db/points',
  );
  for (const { snapshot, seq } of snapshots)
    await checkPoint(appliance.uri(`db@snap:${snapshot}`), guest, seq);
  const report = await appliance.mim('verify', 'db');
  assert.equal(report.status, 0, report.stdout);
}

for (const place of PLACES) {
  test(`killed at ${place}`, () =>
    withFolder(async (folder) => {
      const guest = new Guest(new SeededRandom(11));
      const marks: { name: string; seq: number }[] = [];
      let appliance = await ApplianceProcess.start(`${folder}/data`);
      await appliance.post('/volumes', { name: 'db', sizeBytes: GUEST_BYTES });
      await guest.connect(appliance.uri('db'));
      await guest.write(60);
      marks.push(await appliance.post('/volumes/db/marks', { name: 'first' }));
      await guest.write(40);
      await appliance.post('/volumes/db/syncs', {});
      await guest.write(50);
      await guest.disconnect();
      assert.equal(await appliance.stop(), 0);

      // Some places are passed in the start already.
      const doomed = await ApplianceProcess.start(`${folder}/data`, { MIM_TEST_CRASH_AT: place }).catch(
        (error: Error) => {
          assert.match(error.message, /ended with null/);
          return null;
        },
      );
      if (doomed !== null) {
        const dying = (async () => {
          await guest.connect(doomed.uri('db'));
          await guest.write(30);
          marks.push(await doomed.post('/volumes/db/marks', { name: 'second' }));
          await guest.write(30);
          await doomed.post('/volumes/db/syncs', {});
        })().catch(() => {}); // it dies under us, and that is the test
        assert.equal(await doomed.ended, null, `it was killed at ${place}\n${doomed.output}`);
        await dying;
      }

      appliance = await ApplianceProcess.start(`${folder}/data`);
      try {
        await checkAll(appliance, guest, marks);
        // And it goes on from there.
        await guest.connect(appliance.uri('db'));
        await guest.write(20);
        await guest.disconnect();
        await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
        await checkAll(appliance, guest, marks);
        assert.equal(await appliance.stop(), 0);
      } finally {
        appliance.kill();
        await appliance.ended;
      }
    }));
}

test('killed at random moments under load', () =>
  withFolder(async (folder) => {
    const random = new SeededRandom(5);
    const guest = new Guest(random);
    const marks: { name: string; seq: number }[] = [];
    for (let round = 0; round < 7; round += 1) {
      const appliance = await ApplianceProcess.start(`${folder}/data`);
      try {
        if (round === 0) await appliance.post('/volumes', { name: 'db', sizeBytes: GUEST_BYTES });
        else await checkAll(appliance, guest, marks);
        await guest.connect(appliance.uri('db'));
      } catch (error) {
        appliance.kill();
        throw error;
      }
      const writing = (async () => {
        for (;;) {
          await guest.write(1 + random.below(24));
          if (random.chance(0.2)) await guest.flush();
        }
      })().catch(() => {}); // until it is killed
      const syncing = (async () => {
        for (let i = 0; ; i += 1) {
          marks.push(await appliance.post('/volumes/db/marks', { name: `r${round}-${i}` }));
          await appliance.post('/volumes/db/syncs', { closeSnapshot: random.chance(0.3) });
        }
      })().catch(() => {});
      setTimeout(() => appliance.kill(), 150 + random.below(700));
      await appliance.ended;
      await Promise.all([writing, syncing]);
      marks.splice(0, Math.max(0, marks.length - 6));
    }
  }));
