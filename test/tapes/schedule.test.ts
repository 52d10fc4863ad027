// Tapes by the volume's policy: an image, then differences, then an image again; what the policy does not keep is erased;
// a time that was missed is made up for once.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';
import { Guest, MIB } from '../appliance/restore-under-test.ts';
import { libraryIn, type ShownArchive, Tapes, withTapes } from './tapes-under-test.ts';

const SIZE = 16 * MIB;
const EACH_SECOND = '* * * * * *';
const WAIT_MS_MAX = 60_000;

async function until(tapes: Tapes, holds: (archives: ShownArchive[]) => boolean): Promise<ShownArchive[]> {
  for (const untilMs = Date.now() + WAIT_MS_MAX; ; ) {
    const archives = await tapes.list('db');
    if (holds(archives)) return archives;
    assert.ok(Date.now() < untilMs, `it does not come to be: ${JSON.stringify(archives)}`);
    await pause(100);
  }
}

async function setPolicy(tapes: Tapes, ...fields: string[]): Promise<void> {
  const { status, stderr } = await tapes.mim('volume', 'policy', 'db', '--set', ...fields);
  assert.equal(status, 0, stderr);
}

test('an image, two differences, an image: and only what the policy keeps stays on the media', () =>
  withFolder((shelf) =>
    withTapes(
      async (tapes, appliance) => {
        await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
        const guest = await Guest.connect(appliance.uri('db'), 3);
        await guest.write(0, MIB);
        const byHand = await tapes.write('db', { kind: 'image', at: 'latest' });
        await setPolicy(
          tapes,
          `tapeAt=${EACH_SECOND}`,
          'tapeDifferencesPerImage=2',
          'tapeKeepLast=1',
          ...['Daily', 'Weekly', 'Monthly', 'Yearly'].map((each) => `tapeKeep${each}=0`),
        );
        const kinds: string[] = [];
        let newest: string | undefined;
        for (let round = 0; round < 4; round += 1) {
          await guest.write(round * MIB, 65_536);
          const archives = await until(
            tapes,
            ([first]) => first !== undefined && first.archive !== newest && first.archive !== byHand,
          );
          newest = archives[0]!.archive;
          kinds.push(archives[0]!.kind);
        }
        assert.deepEqual(kinds, ['image', 'difference', 'difference', 'image']);
        // The new image needs nothing of the old chain; what a person wrote stays.
        await until(tapes, (archives) => archives.length === 2);
        const left = await tapes.list('db');
        assert.deepEqual(new Set(left.map((each) => each.archive)), new Set([newest, byHand]));
        const onMedia = (await tapes.cartridges()).flatMap(({ archives }) =>
          archives.map(({ archive }) => archive),
        );
        assert.deepEqual(new Set(onMedia), new Set([newest, byHand]));
        // Nothing is written while nothing changes.
        const { jobs } = await appliance.get<{ jobs: unknown[] }>('/tape-jobs');
        await pause(6000);
        assert.equal((await appliance.get<{ jobs: unknown[] }>('/tape-jobs')).jobs.length, jobs.length);
        await guest.close();
      },
      { MIM_TAPE_LIBRARY: libraryIn(shelf) },
    ),
  ));

test('times that were missed while the appliance was stopped are made up for by one tape', () =>
  withFolder(async (folder) => {
    const env = { MIM_TAPE_LIBRARY: libraryIn(folder) };
    const first = await ApplianceProcess.start(`${folder}/data`, env);
    try {
      await first.post('/volumes', { name: 'db', sizeBytes: SIZE });
      // Once a year, and a few seconds from now.
      const at = new Date(Date.now() + 8000);
      const cron = `${at.getUTCSeconds()} ${at.getUTCMinutes()} ${at.getUTCHours()} ${at.getUTCDate()} ${at.getUTCMonth() + 1} *`;
      await setPolicy(new Tapes(first, folder), `tapeAt=${cron}`);
      const guest = await Guest.connect(first.uri('db'), 3);
      await guest.write(0, MIB);
      await guest.close();
      await pause(Math.max(0, at.getTime() - 1500 - Date.now()));
      assert.equal(await first.stop(), 0);
      await pause(Math.max(0, at.getTime() + 500 - Date.now()));
    } finally {
      first.kill();
      await first.ended;
    }
    const again = await ApplianceProcess.start(`${folder}/data`, env);
    try {
      const tapes = new Tapes(again, folder);
      await until(tapes, (archives) => archives.length === 1);
      await pause(6000);
      assert.equal((await tapes.list('db')).length, 1);
      assert.equal(await again.stop(), 0);
    } finally {
      again.kill();
      await again.ended;
    }
  }));
