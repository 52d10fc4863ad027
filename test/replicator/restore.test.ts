// The way back of a replicated primary: not under its replicator; once restored, the replicator makes the volume equal
// to it, and what the volume was before stays.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import { assertExportHolds, assertHolds, Guest, MIB, Restores } from '../appliance/restore-under-test.ts';
import { ReplicatorProcess, stateOf } from './replicator-process.ts';

const SIZE = 32 * MIB;
const MS_MAX = 30_000;

test('a primary goes back to a moment, and replication goes on from there', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const primary = `${folder}/primary.img`;
    writeFileSync(primary, Buffer.alloc(SIZE));
    const place = { folder, primary, to: appliance.uri('db'), volume: 'db', api: appliance.api };
    let replicator = await ReplicatorProcess.start(place);
    try {
      await replicator.untilMode('replicating', MS_MAX);
      const guest = await Guest.connect(replicator.uri);
      await guest.write(0, 4 * MIB);
      await guest.scatter(40);
      // By way of the replicator, after all that it has answered.
      await succeed(process.execPath, ['services/mim/main.ts', '--api', place.api, 'mark', 'db', 'good'], {
        env: { MIM_REPLICATOR_DIR: stateOf(place) },
      });
      const good = Buffer.from(guest.bytes);
      await guest.scatter(40);
      const bad = await guest.close();

      const restores = new Restores(appliance, folder);
      const state = ['--replicator-dir', stateOf(place)];
      const words = ['db', '--at', 'mark:good', '--to', primary, '--yes', ...state];
      await restores.fails(1, /replicated already by process \d+/, ...words);
      await restores.fails(
        1,
        /is replicated from .*primary\.img/,
        'db',
        '--at',
        'mark:good',
        '--in-place',
        '--yes',
        ...state,
      );
      assert.equal(await replicator.stop(), 0);
      assertHolds(primary, bad);
      // In step when it stopped: the primary is what the volume is.
      const back = await restores.lines(...words);
      assert.equal(back.plan!.how, 'known');
      assertHolds(primary, good);

      replicator = await ReplicatorProcess.start(place);
      await replicator.untilMode('replicating', MS_MAX);
      assert.equal(await replicator.stop(), 0);
      await assertExportHolds(appliance.uri('db'), good);
      await assertExportHolds(appliance.uri('db@mark:good'), good);
      const { gaps } = await appliance.get<{ gaps: { fromSeq: number }[] }>('/volumes/db/points');
      const before = Math.max(...gaps.map(({ fromSeq }) => fromSeq));
      await assertExportHolds(appliance.uri(`db@seq:${before}`), bad);
    } finally {
      await replicator.kill();
    }
  }));
