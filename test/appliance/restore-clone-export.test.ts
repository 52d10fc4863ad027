// A clone of a moment for the guest while its own disk is restored behind it; and `mim export`.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { run, succeed, withAppliance } from './appliance-process.ts';
import { assertExportHolds, assertHolds, bytesOnDisk, Guest, MIB, Restores } from './restore-under-test.ts';

const SIZE = 48 * MIB;

test('a clone while the guest runs on it, then what the guest wrote to it', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.write(0, 10 * MIB);
    const then = Buffer.from(await guest.close());
    await appliance.post('/volumes/db/marks', { name: 'good' });
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    const first = await restores.lines('db', '--at', 'mark:good', '--to', file, '--instant', 'now');
    assert.equal(first.clone!.uri, appliance.uri('now'));
    assertHolds(file, then);
    await assertExportHolds(first.clone!.uri, then);

    const onClone = await Guest.connect(first.clone!.uri, 2);
    then.copy(onClone.bytes);
    await onClone.scatter(30);
    const now = await onClone.close();
    await restores.fails(
      2,
      /now is a clone.*--at is for volumes/,
      'now',
      '--at',
      'latest',
      '--to',
      file,
      '--yes',
    );
    const second = await restores.lines('now', '--to', file, '--yes');
    assert.ok(second.plan!.bytes > 0 && second.plan!.bytes < 10 * MIB);
    assertHolds(file, now);
    await restores.fails(
      1,
      /clone "now"|name .*now/,
      'db',
      '--at',
      'mark:good',
      '--to',
      `${folder}/x.img`,
      '--instant',
      'now',
    );
    assert.ok(!existsSync(`${folder}/x.img`), 'no clone, no restore');
  }));

test('a point as a file: raw and qcow2, never half of one under its name', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.scatter(50, 16 * MIB);
    const bytes = await guest.close();
    const restores = new Restores(appliance, folder);
    const [raw, qcow2] = [`${folder}/db.raw`, `${folder}/db.qcow2`];
    const words = ['export', 'db', '--at', 'latest'];
    for (const [format, output] of [
      ['raw', raw],
      ['qcow2', qcow2],
    ] as const) {
      const made = await restores.run(...words, '--format', format, '-o', output);
      assert.equal(made.status, 0, made.stderr);
      assert.match(made.stdout, /on disk\) is db as of write \d+, /);
      assert.ok(bytesOnDisk(output) < SIZE / 2, `${format}: what is empty takes no space`);
      const before = statSync(output).ino;
      await restores.fails(2, /exists already\n.*--force/, ...words, '--format', format, '-o', output);
      assert.equal(statSync(output).ino, before);
      assert.equal((await restores.run(...words, '--format', format, '-o', output, '--force')).status, 0);
      assert.notEqual(statSync(output).ino, before);
    }
    assertHolds(raw, bytes);
    assert.match(await succeed('qemu-img', ['info', qcow2]), /file format: qcow2/);
    await succeed('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', qcow2, `${folder}/back.raw`]);
    assertHolds(`${folder}/back.raw`, bytes);
    const { status, stderr } = await run(
      process.execPath,
      [...['services/mim/main.ts', '--api', appliance.api], ...words, '-o', `${folder}/none.qcow2`],
      { env: { ...restores.env, PATH: `${folder}/nothing` } },
    );
    assert.equal(status, 1);
    assert.match(stderr, /qemu-img can't be run.*\n.*install qemu-utils.*--format raw/);
    await restores.fails(2, /which point of db/, 'export', 'db', '-o', `${folder}/z`);
    await restores.fails(2, /exists and is no file/, ...words, '-o', folder, '--force');
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.includes('mim-')),
      [],
    );
  }));
