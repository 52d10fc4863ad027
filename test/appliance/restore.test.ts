// `mim restore` onto files: only what differs is moved, the plan says so beforehand, what is wrong is refused before a
// byte is touched.
import assert from 'node:assert/strict';
import {
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { nodeFiles } from '@midmirror/pool';
import { INTENT_NAME, openStateDirectory } from '../../services/replicator/edges/state-directory.ts';
import { type Ran, run, withAppliance } from './appliance-process.ts';
import { assertHolds, bytesOnDisk, Guest, MIB, Restores } from './restore-under-test.ts';

const SIZE = 48 * MIB;

test('a point onto a new file, then others onto it by comparing and by what is known', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.write(0, 20 * MIB);
    await guest.scatter(60);
    await appliance.post('/volumes/db/marks', { name: 'one' });
    const one = Buffer.from(guest.bytes);
    await guest.scatter(40);
    await guest.zeroes(8 * MIB, 2 * MIB);
    const two = await guest.close();
    await appliance.post('/volumes/db/marks', { name: 'two' });
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;

    const planned = await restores.lines('db', '--at', 'mark:one', '--to', file, '--dry-run');
    assert.ok(!existsSync(file) && planned.done === undefined, 'a dry run makes nothing');
    const made = await restores.run('db', '--at', 'mark:one', '--to', file);
    assert.equal(made.status, 0, made.stderr);
    assert.match(
      made.stdout,
      /^Restore of db as of write \d+, \d{4}-.*Z\nonto .*db\.img\n {2}how .*new file.*\n {2}to move .* ranges from nbd:.*@seq:\d+\n {2}time .*\/s at which/,
    );
    assert.match(made.stdout, /db\.img holds db as of write .* moved, all of it read back and right/);
    assertHolds(file, one);
    assert.ok(bytesOnDisk(file) < SIZE, 'what is empty takes no space');
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.includes('mim-restore')),
      [],
      'no record is left',
    );

    const compared = await restores.lines('db', '--at', 'mark:two', '--to', file, '--yes');
    assert.equal(compared.plan!.how, 'compared');
    assert.equal(compared.plan!.comparedByReadingBytes, 0, 'by digests');
    assertHolds(file, two);
    assert.ok(compared.done!.bytesWritten < 20 * MIB, 'only what differs was written');
    assert.ok(compared.done!.bytesZeroed > 0, 'holes of the point become zeroes');
    assert.equal(compared.done!.bytesVerified, compared.plan!.bytes);

    const known = await restores.lines('db', '--at', 'mark:one', '--to', file, '--yes', '--base', 'mark:two');
    assert.equal(known.plan!.how, 'known');
    assert.ok(known.plan!.bytes <= compared.plan!.bytes, 'to the sector, where comparing goes by blocks');
    assertHolds(file, one);

    const again = await restores.lines('db', '--at', 'mark:one', '--to', file, '--yes');
    assert.equal(again.plan!.bytes, 0, 'nothing differs');
    assert.equal(again.done!.bytesWritten, 0);

    await restores.fails(
      1,
      /does not hold the base: it differs in 4096 bytes at \d+\n.*--base away/,
      ...['db', '--at', 'mark:two', '--to', file, '--yes', '--base', 'mark:two'],
    );
    assertHolds(file, one);
  }));

test('what is wrong is refused with what to do, and nothing is touched', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.scatter(20);
    const bytes = await guest.close();
    const restores = new Restores(appliance, folder);
    const file = `${folder}/db.img`;
    writeFileSync(file, Buffer.alloc(SIZE, 7));
    const to = ['--at', 'latest', '--to', file];

    await restores.fails(2, /writes over .*db\.img\n.*--yes.*--dry-run/, 'db', ...to);
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

test('at a terminal it asks before it writes over something', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.scatter(20);
    const bytes = await guest.close();
    const file = `${folder}/db.img`;
    writeFileSync(file, Buffer.alloc(SIZE, 7));
    const mim = `${process.execPath} services/mim/main.ts --api ${appliance.api} restore db --at latest --to ${file}`;
    const asked = (answer: string): Promise<Ran> =>
      run('script', ['-qec', `${mim} --state-dir ${folder}/state`, '/dev/null'], { input: answer });
    const no = await asked('no\n');
    assert.match(no.stdout, /to move .*Write over .*db\.img\? \[y\/N\].*nothing was done/s);
    assert.equal(no.status, 1);
    assertHolds(file, Buffer.alloc(SIZE, 7));
    const yes = await asked('y\n');
    assert.equal(yes.status, 0, yes.stdout);
    assertHolds(file, bytes);
  }));

test('a record that is none is refused, and left alone', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.scatter(20);
    const bytes = await guest.close();
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

test('a primary is not restored under its replicator, which then knows nothing of what was', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.scatter(20);
    const bytes = await guest.close();
    const restores = new Restores(appliance, folder);
    const file = `${folder}/primary.img`;
    writeFileSync(file, Buffer.alloc(SIZE, 7));
    const files = nodeFiles();
    const root = `${folder}/replicator`;
    const address = { path: `${folder}/appliance.sock` };
    const state = await openStateDirectory(files, root, realpathSync(file), { address, exportName: 'db' });
    writeFileSync(`${state.path}/${INTENT_NAME}`, 'what is behind');
    const link = `${folder}/link.img`;
    symlinkSync(file, link);
    const words = ['db', '--at', 'latest', '--to', link, '--yes', '--replicator-dir', root];
    await restores.fails(
      1,
      /primary\.img is replicated already by process \d+\n.*must have stopped/,
      ...words,
    );
    assertHolds(file, Buffer.alloc(SIZE, 7));
    state.lock.release();
    await restores.run(...words, '--dry-run');
    assert.ok(existsSync(`${state.path}/${INTENT_NAME}`));
    const done = await restores.run(...words);
    assert.equal(done.status, 0, done.stderr);
    assert.match(done.stderr, /compares all of it when it starts next/);
    assert.ok(!existsSync(`${state.path}/${INTENT_NAME}`));
    assertHolds(file, bytes);
  }));
