// What `mim restore` refuses: with what was wrong and what to do, and before a byte is touched.
import assert from 'node:assert/strict';
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { withAppliance } from './appliance-process.ts';
import { assertHolds, MIB, Restores, scattered } from './restore-under-test.ts';

const SIZE = 48 * MIB;

test('what is wrong is refused with what to do, and nothing is touched', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await scattered(appliance, SIZE, 20);
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    writeFileSync(file, Buffer.alloc(SIZE, 7));
    const to = ['--at', 'latest', '--to', file];

    await restores.fails(2, /one target\n.*--in-place/, 'db', '--at', 'latest');
    await restores.fails(2, /one target/, 'db', ...to, '--in-place');
    await restores.fails(
      2,
      /--base does not go with --in-place/,
      'db',
      '--at',
      'latest',
      '--in-place',
      '--base',
      'seq:1',
    );
    await restores.fails(2, /which point of db\?\n.*--at/, 'db', '--to', file, '--yes');
    await restores.fails(2, /"yesteryear" is not a point/, 'db', '--at', 'yesteryear', '--to', file, '--yes');
    await restores.fails(3, /seq:99999 is not a point/, 'db', '--at', 'seq:99999', '--to', file, '--yes');
    await restores.fails(3, /seq:99999 is not a point/, 'db', ...to, '--yes', '--base', 'seq:99999');
    await restores.fails(1, /no volume "nope"/, 'nope', ...to, '--yes');
    await restores.fails(2, /no folder, so/, 'db', '--at', 'latest', '--to', `${folder}/no/db.img`);
    await restores.fails(
      2,
      /neither a file nor a block device/,
      'db',
      '--at',
      'latest',
      '--to',
      folder,
      '--yes',
    );
    await restores.fails(
      2,
      /no device \/dev\/mim-none/,
      'db',
      '--at',
      'latest',
      '--to',
      '/dev/mim-none',
      '--yes',
    );
    await restores.fails(
      2,
      /not the address of an NBD export/,
      'db',
      '--at',
      'latest',
      '--to',
      'http://x/y',
      '--yes',
    );
    await restores.fails(2, /--connections: "0"/, 'db', ...to, '--yes', '--connections', '0');
    assertHolds(file, Buffer.alloc(SIZE, 7));

    for (const [size, message] of [
      [SIZE - 512, /too small: .*\(50331136 bytes\); the disk has 48 MiB \(50331648 bytes\)/],
      [SIZE + 4096, /too large: .*\n.*--allow-larger/],
    ] as const) {
      truncateSync(file, size);
      await restores.fails(2, message, 'db', ...to, '--yes');
      assert.equal(statSync(file).size, size);
      assert.equal(readFileSync(file)[0], 7);
    }
    await restores.lines('db', ...to, '--yes', '--allow-larger');
    assertHolds(file, bytes);
    assert.equal(statSync(file).size, SIZE + 4096, 'the rest is left alone');
  }));

test('a record that is none is refused, and left alone', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await scattered(appliance, SIZE, 20);
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    writeFileSync(file, Buffer.alloc(SIZE, 7));
    const words = ['db', '--at', 'latest', '--to', file, '--yes'];
    writeFileSync(`${file}.mim-restore`, 'my notes');
    await restores.fails(1, /mim-restore is no record of a restore\n.*move the file away/, ...words);
    await restores.fails(1, /is no record/, 'db', '--status', '--to', file);
    assert.equal(readFileSync(`${file}.mim-restore`, 'utf8'), 'my notes');
    assertHolds(file, Buffer.alloc(SIZE, 7));
    rmSync(`${file}.mim-restore`);
    await restores.lines(...words);
    assertHolds(file, bytes);
    const status = await restores.run('db', '--status', '--to', file);
    assert.match(status.stdout, /no restore is unfinished/);
  }));
