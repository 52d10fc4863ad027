// An appliance of a user who may mount nothing: each kind of check, and mim ls, cat and cp, reach files all the same where a
// program of this user reads the file system, and say so where none does.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { NOBODY, rootFor, run, succeed, withAppliance } from '../appliance/appliance-process.ts';
import { BLOCK_BYTES, certify, clonesOf, ext4Image, leftOf, program, volumeOf } from './checked-volume.ts';

const MIB = 1 << 20;
const VIRUS = 'this is what our signature calls a virus';

async function emptyImage(folder: string, kind: 'xfs' | 'btrfs' | 'vfat', mib: number): Promise<string> {
  const image = `${folder}/${kind}.img`;
  writeFileSync(image, '');
  truncateSync(image, mib * MIB);
  await succeed(`mkfs.${kind}`, [...(kind === 'vfat' ? [] : ['-q']), image]);
  return image;
}

test('checks of files, file systems and programs, and mim ls, cat and cp, without root', () =>
  withAppliance(
    {},
    async (appliance, folder) => {
      const image = await ext4Image(folder, 32 * MIB, (source) => {
        mkdirSync(`${source}/srv`);
        mkdirSync(`${source}/home`);
        const database = new DatabaseSync(`${source}/srv/app.db`);
        database.exec('create table item (id integer primary key, name text)');
        const insert = database.prepare('insert into item (name) values (?)');
        for (let i = 0; i < 500; i += 1) insert.run(`item ${i}`);
        database.close();
        writeFileSync(`${source}/home/for-root-only`, VIRUS, { mode: 0 });
        mkdirSync(`${source}/home/closed`, { mode: 0o500 });
        writeFileSync(`${source}/home/closed/\x1b[2J\n..`, 'an odd name');
        symlinkSync('/etc/passwd', `${source}/home/out`);
      });
      await succeed('debugfs', ['-w', '-f', '-', image], { input: 'cd home\nmknod pipe p\n' });
      const signatures = `${folder}/own.hsb`;
      const sign = (text: string, name: string): string =>
        `${createHash('sha256').update(text).digest('hex')}:${text.length}:${name}:73\n`;
      writeFileSync(signatures, sign('nothing of it', 'Test.Other'));
      await volumeOf(appliance, 'db', image);
      for (const [kind, mib] of [
        ['xfs', 300],
        ['btrfs', 110],
        ['vfat', 16],
      ] as const) {
        const empty = await emptyImage(folder, kind, mib);
        if (kind === 'vfat') await succeed('mcopy', ['-i', empty, signatures, '::own.hsb']);
        await volumeOf(appliance, kind, empty);
      }
      const add = (volume: string, kind: string, name: string, settings: object = {}): Promise<unknown> =>
        appliance.post(`/volumes/${volume}/checks`, { name, kind, settings });
      const asFiles = (path: string): object => ({ program: path, as: 'files' });
      const look = program(
        folder,
        'look',
        'cd "$MIM_MIRROR_FILES" && find . | LC_ALL=C sort && cat home/for-root-only && test ! -e home/out',
      );
      const write = program(
        folder,
        'write',
        'echo x >"$MIM_MIRROR_FILES/home/for-root-only"; mkdir -p shut/in && chmod 0 shut/in shut',
      );
      const list = program(folder, 'list', 'cat "$MIM_MIRROR_FILES/own.hsb"');
      await add('db', 'sqlite', 'sqlite', { paths: ['/srv/*.db'] });
      await add('db', 'virus', 'virus', { database: signatures });
      await add('db', 'command', 'look', asFiles(look));
      const file = program(
        folder,
        'file',
        'blkid -o value -s TYPE "$MIM_MIRROR_FILE" || exit 9\n(echo x | dd of="$MIM_MIRROR_FILE" conv=notrunc) 2>/dev/null; echo $?',
      );
      await add('db', 'command', 'file', { program: file, as: 'file' });
      await add('db', 'command', 'write-file', { program: file, as: 'file', writable: true });
      await add('db', 'command', 'write', { ...asFiles(write), writable: true });
      for (const volume of ['db', 'xfs', 'btrfs', 'vfat']) await add(volume, 'fsck', 'fsck');
      for (const volume of ['xfs', 'vfat']) await add(volume, 'command', 'list', asFiles(list));

      const before = await digestOf('db@latest');
      const said = async (volume: string, check: string, verdict: string): Promise<string> => {
        const found = await certify(appliance, volume, check);
        assert.equal(found.verdict, verdict, JSON.stringify(found));
        return `${found.reason}\n${found.output}`;
      };
      // Only what it asks for is copied out: two folders and a file.
      assert.match(
        await said('db', 'sqlite', 'good'),
        /3 files and folders, .* were copied out by debugfs, as nothing is mounted here\n\/srv\/app\.db: sound/,
      );
      await said('db', 'virus', 'good');
      const looked = await said('db', 'look', 'good');
      assert.match(looked, /left out: 1 symbolic link, 1 device, pipe or socket\n/);
      assert.match(looked, /\n\.\/home\/for-root-only\n\.\/lost\+found\n[\s\S]*our signature calls a virus/);
      assert.ok(!looked.includes('\x1b'));
      await said('db', 'write', 'good');
      assert.match(await said('db', 'file', 'good'), /not through FUSE: copied\next4\n1\n$/);
      assert.match(await said('db', 'write-file', 'good'), /not through FUSE: copied\next4\n0\n$/);
      assert.match(await said('vfat', 'list', 'good'), /copied out by 7z[\s\S]*Test\.Other/);
      assert.match(
        await said('xfs', 'list', 'cannot-tell'),
        /files of this xfs can't be reached .*nbdfuse: .*; debugfs: it knows ext2, ext3 and ext4.*run the monitor as root/,
      );
      for (const volume of ['db', 'xfs', 'btrfs', 'vfat']) await said(volume, 'fsck', 'good');
      assert.equal(await digestOf('db@latest'), before, 'no check has changed the moment');
      assert.match(appliance.output, /checks are kept apart: network: .*; processes: .*; memory: /);

      // All that the copy was made of counts as read.
      const block = Number(
        (await succeed('debugfs', ['-R', 'blocks /srv/app.db', image])).trim().split(/\s+/)[0],
      );
      const client = await connectNbd(appliance.uri('db'));
      await client.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 0xff));
      await client.close();
      assert.equal((await certify(appliance, 'db', 'sqlite')).verdict, 'bad');
      writeFileSync(signatures, sign(VIRUS, 'Test.Virus'));
      assert.match(await said('db', 'virus', 'bad'), /home\/for-root-only: Test\.Virus\.UNOFFICIAL FOUND/);

      const root = rootFor(NOBODY);
      const mim = (...args: string[]) =>
        run(
          `${root}/node_modules/.bin/node`,
          [`${root}/services/mim/main.ts`, '--api', appliance.api, ...args],
          { user: NOBODY, env: { HOME: folder } },
        );
      const listed = await mim('ls', 'db@latest:/home');
      assert.equal(listed.status, 0, listed.stderr);
      assert.match(listed.stdout, /for-root-only/);
      const read = await mim('cat', 'db@latest:/home/for-root-only');
      assert.deepEqual([read.status, read.stdout], [0, VIRUS]);
      const copied = await mim('cp', '-r', 'db@latest:/home', `${folder}/copy`);
      assert.equal(copied.status, 0, copied.stderr);
      assert.equal(readFileSync(`${folder}/copy/for-root-only`, 'utf8'), VIRUS);
      const refused = await mim('ls', 'xfs@latest:/');
      assert.equal(refused.status, 1);
      assert.match(refused.stderr, /can't be reached on this machine/);
      assert.deepEqual(leftOf(`${folder}/data`), []);
      assert.deepEqual(await clonesOf(appliance), []);

      async function digestOf(name: string): Promise<string> {
        await succeed('nbdcopy', [appliance.uri(name), `${folder}/digested`]);
        return (await succeed('sha256sum', [`${folder}/digested`])).split(' ')[0]!;
      }
    },
    NOBODY,
  ));
