// `mim restore` onto files: only what differs is moved, the plan says so beforehand.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { nodeFiles } from '@midmirror/pool';
import { INTENT_NAME, openStateDirectory } from '../../services/replicator/edges/state-directory.ts';
import { type Ran, run, withAppliance } from './appliance-process.ts';
import { assertHolds, bytesOnDisk, Guest, MIB, Restores, scattered } from './restore-under-test.ts';

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

test('at a terminal it asks before it writes over something', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await scattered(appliance, SIZE, 20);
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

test('a primary is not restored under its replicator, which then knows nothing of what was', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await scattered(appliance, SIZE, 20);
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
