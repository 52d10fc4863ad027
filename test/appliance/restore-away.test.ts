// Restores whose appliance dies in the middle: they wait for it, give up in time, go on later, and say so when the point
// is not kept any more.
import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { ApplianceProcess, withFolder } from './appliance-process.ts';
import { assertHolds, fillDisk, linesOf, MIB, Restores, until } from './restore-under-test.ts';

const SIZE = 256 * MIB;

test('the appliance is killed in the middle: a restore waits for it, then gives up, and goes on later', () =>
  withFolder(async (folder) => {
    const listen = { MIM_NBD_LISTEN: '', MIM_API_LISTEN: '' };
    let appliance = await ApplianceProcess.start(`${folder}/data`);
    listen.MIM_NBD_LISTEN = appliance.nbd.replace('nbd://', '');
    listen.MIM_API_LISTEN = appliance.api.replace('http://', '');
    try {
      const bytes = await fillDisk(appliance, SIZE, 5);
      const restores = new Restores(appliance, folder);
      const file = `${folder}/db.img`;
      const record = `${file}.mim-restore`;
      const words = ['db', '--at', 'seq:32', '--to', file];
      const first = restores.start('--json', ...words);
      assert.ok(await until(record, 1, first.ended), 'the appliance dies in the middle');
      appliance.kill();
      await appliance.ended;
      appliance = await ApplianceProcess.start(`${folder}/data`, listen);
      const { status, stdout, stderr } = await first.ended;
      assert.equal(status, 0, stderr);
      assert.equal(linesOf(stdout).plan!.how, 'new');
      assertHolds(file, bytes);

      rmSync(file);
      const second = restores.start('--json', ...words, '--retry-for', '1');
      assert.ok(await until(record, 1, second.ended));
      appliance.kill();
      await appliance.ended;
      const gaveUp = await second.ended;
      assert.equal(gaveUp.status, 1, gaveUp.stdout);
      assert.match(gaveUp.stderr, /away for 1 s/);
      await restores.fails(1, /no appliance answers at/, ...words);
      assert.ok(existsSync(record));
      appliance = await ApplianceProcess.start(`${folder}/data`, listen);
      const third = await restores.lines(...words);
      assert.equal(third.plan!.how, 'resumed');
      assertHolds(file, bytes);

      // Nothing holds the point while the appliance is away.
      rmSync(file);
      const fourth = restores.start('db', '--at', 'seq:24', '--to', file);
      assert.ok(await until(record, 1, fourth.ended));
      fourth.child.kill('SIGSTOP');
      appliance.kill();
      await appliance.ended;
      appliance = await ApplianceProcess.start(`${folder}/data`, listen);
      await appliance.post('/volumes/db/syncs', { upTo: 'latest' });
      fourth.child.kill('SIGCONT');
      const gone = await fourth.ended;
      assert.equal(gone.status, 3, gone.stdout + gone.stderr);
      assert.match(gone.stderr, /point is not kept any more.*\n.*mim points/);
      assert.match((await restores.run('db', '--status', '--to', file)).stdout, /is incomplete/);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
