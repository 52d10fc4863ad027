// A volume that is put back by itself when the appliance is killed in the middle.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, withFolder } from '../appliance/appliance-process.ts';
import { assertExportHolds, MIB } from '../appliance/restore-under-test.ts';
import { certify, until } from './checked-volume.ts';
import { World } from './put-back-world.ts';

test('killed in the middle it goes on, and is undone to what was there before the first try', () =>
  withFolder(async (folder) => {
    const size = 128 * MIB;
    let appliance = await ApplianceProcess.start(`${folder}/data`);
    try {
      const world = new World(appliance, folder);
      await world.volume('db', size);
      await world.spoil('db', size);
      const before = (await appliance.get<{ latest: { seq: number } }>('/volumes/db')).latest.seq;
      const found = certify(appliance, 'db', 'sector');
      await until('its middle', async () => {
        const { latest } = await appliance.get<{ latest: { seq: number } }>('/volumes/db');
        return latest.seq > before + 30;
      });
      await assert.rejects(
        connectNbd(appliance.uri('db')),
        /takes no connection now: check sector has condemned/,
      );
      const [under] = await world.restores('db');
      assert.equal(under?.status, 'running');
      appliance.kill();
      await appliance.ended;
      await found.catch(() => {}); // it may have been asking
      appliance = await ApplianceProcess.start(`${folder}/data`);
      const after = new World(appliance, folder);
      const done = await after.restore('db');
      assert.equal(done.end?.kind, 'restored', JSON.stringify(done));
      assert.equal(done.job, under.job);
      await assertExportHolds(appliance.uri('db'), world.good);
      await assertExportHolds(appliance.uri(`db@mark:${done.undoMark}`), world.bad);
      const { marks } = await appliance.get<{ marks: { name: string }[] }>('/volumes/db/points');
      assert.deepEqual(
        marks.map(({ name }) => name),
        [done.undoMark],
      );
      assert.equal((await after.restores('db')).length, 1);
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
