// Programs of the operator that get the moment as a file, as a folder, or as a clone that they may write to. The moment itself
// stays as it was.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import { certify, clonesOf, ext4Image, leftOf, program, volumeOf } from './checked-volume.ts';

const MIB = 1 << 20;

test('programs with a file, a folder, and clones of both; what is steady is asked once', () =>
  withAppliance({}, async (appliance, folder) => {
    const image = await ext4Image(folder, 16 * MIB, (source) => {
      for (const name of ['srv', 'home']) mkdirSync(`${source}/${name}`);
      writeFileSync(`${source}/srv/app.db`, 'a database');
    });
    await volumeOf(appliance, 'db', image);
    const add = async (...args: string[]): Promise<void> => {
      const added = await appliance.mim('check', 'add', 'db', ...args);
      assert.equal(added.status, 0, added.stderr);
    };
    const file = program(
      folder,
      'file',
      'test -r "$MIM_MIRROR_FILE" || exit 9\n(echo x | dd of="$MIM_MIRROR_FILE" bs=1 conv=notrunc) 2>/dev/null && exit 1\nblkid -o value -s TYPE "$MIM_MIRROR_FILE"',
    );
    const files = program(
      folder,
      'files',
      'ls "$MIM_MIRROR_FILES/srv"\n(echo x >"$MIM_MIRROR_FILES/home/new") 2>/dev/null && exit 1; exit 0',
    );
    const writableFile = program(
      folder,
      'writable-file',
      'dd if=/dev/zero of="$MIM_MIRROR_FILE" bs=1M count=4 conv=notrunc status=none || exit 9',
    );
    const writableFiles = program(
      folder,
      'writable-files',
      'rm -r "$MIM_MIRROR_FILES/srv" && echo x >"$MIM_MIRROR_FILES/home/new" && ls "$MIM_MIRROR_FILES" || exit 9',
    );
    const command = ['command', '--program'];
    await add(...command, file, '--name', 'file', '--as', 'file');
    await add(...command, files, '--name', 'files', '--as', 'files', '--steady');
    await add(...command, writableFile, '--name', 'writable-file', '--as', 'file', '--writable');
    await add(...command, writableFiles, '--name', 'writable-files', '--as', 'files', '--writable');
    const before = await digestOf('db@latest');
    for (const [check, said] of Object.entries({
      file: /^ext4\n$/,
      files: /^app\.db\n$/,
      'writable-file': /^$/,
      'writable-files': /^home\nlost\+found\n$/,
    })) {
      const verdict = await certify(appliance, 'db', check);
      assert.equal(verdict.verdict, 'good', JSON.stringify(verdict));
      assert.match(verdict.output, said);
    }
    assert.equal(await digestOf('db@latest'), before, 'no check has changed the moment');

    // A program that says that it is steady is asked once; one that does not, each time.
    const asked = `${folder}/asked`;
    const counting = program(folder, 'counting', `echo . >>"${asked}"; nbdinfo --size "$MIM_MIRROR_URI"`);
    await add(...command, counting, '--name', 'steady', '--steady');
    await add(...command, counting, '--name', 'unsteady');
    for (const check of ['steady', 'unsteady']) {
      rmSync(asked, { force: true });
      for (let i = 0; i < 3; i += 1) await certify(appliance, 'db', check);
      const times = Number((await succeed('wc', ['-l', asked])).split(' ')[0]);
      assert.equal(times, check === 'steady' ? 1 : 3, check);
    }

    // What can't be told is no success, and mistakes are named.
    await add(...command, folder, '--name', 'folder');
    const untold = await appliance.mim('certify', 'db', '--check', 'folder', '--at', 'latest');
    assert.equal(untold.status, 1);
    assert.match(untold.stdout, /`mim check verdicts db --check folder` shows why/);
    const why = await appliance.mim('check', 'verdicts', 'db', '--check', 'folder');
    assert.match(why.stdout, /is not there, or can't be run \(exit status 126\)/);
    const searched = await appliance.mim('bisect', 'db', '--check', 'folder', '--good', 'seq:1');
    assert.equal(searched.status, 1);
    assert.match(searched.stdout, /folder could not tell of the bad point, nor of those before it\. no good/);
    for (const [said, ...args] of [
      ['--jobs: "x" is not a whole number from 1 on', 'bisect', 'db', '--check', 'file', '--jobs', 'x'],
      ['--every: "0" is not a whole number', 'certify', 'db', '--check', 'file', '--every', '0'],
      ['body/onCondemned must be .*: notify, clone', 'check', 'add', 'db', 'fsck', '--name', 'x'],
    ] as const) {
      const more = args[0] === 'check' ? ['--on-condemned', 'weep'] : [];
      const wrong = await appliance.mim(...args, ...more);
      assert.equal(wrong.status, 2);
      assert.match(wrong.stderr, new RegExp(said));
    }
    assert.deepEqual(leftOf(`${folder}/data`), []);
    assert.deepEqual(await clonesOf(appliance), []);

    async function digestOf(name: string): Promise<string> {
      await succeed('nbdcopy', [appliance.uri(name), `${folder}/copy`]);
      return (await succeed('sha256sum', [`${folder}/copy`])).split(' ')[0]!;
    }
  }));
