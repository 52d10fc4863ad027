// Restores that are stopped: they say so; and a target that was taken away or replaced before the next try.
import assert from 'node:assert/strict';
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { withAppliance } from './appliance-process.ts';
import { assertHolds, fillDisk, MIB, Restores, until } from './restore-under-test.ts';

const SIZE = 256 * MIB;

test('a target that was taken away or replaced meanwhile is not gone on with', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await fillDisk(appliance, SIZE, 7);
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    const words = ['db', '--at', 'seq:32', '--to', file];
    const killed = async (): Promise<void> => {
      const { child, ended } = restores.start(...words);
      assert.ok(await until(`${file}.mim-restore`, 1, ended), 'it is killed in the middle');
      child.kill('SIGKILL');
      await ended;
    };
    await killed();
    rmSync(file);
    const anew = await restores.lines(...words);
    assert.equal(anew.plan!.how, 'new');
    assertHolds(file, bytes);

    rmSync(file);
    await killed();
    rmSync(file);
    writeFileSync(file, '');
    truncateSync(file, SIZE);
    const compared = await restores.lines(...words, '--yes');
    assert.equal(compared.plan!.how, 'compared');
    assertHolds(file, bytes);
  }));

test('stopped by a signal, or with nobody to tell, it says that it has not ended', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await fillDisk(appliance, SIZE, 7);
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    const words = ['db', '--at', 'seq:32', '--to', file];
    const unheard = restores.start(...words);
    unheard.child.stdout!.destroy();
    assert.equal((await unheard.ended).status, 1);
    const stopped = restores.start(...words);
    assert.ok(await until(`${file}.mim-restore`, 1, stopped.ended), 'it is stopped in the middle');
    stopped.child.kill('SIGINT');
    const { status, stderr } = await stopped.ended;
    assert.equal(status, null, 'it ends by the signal');
    assert.match(stderr, /db\.img is not restored; the same command goes on/);
    assert.equal((await restores.lines(...words)).plan!.how, 'resumed');
    assertHolds(file, bytes);
  }));
