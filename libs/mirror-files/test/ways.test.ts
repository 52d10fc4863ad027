import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { openMirror, thisMachine } from '../index.ts';
import { contract } from './contract.ts';
import { makeImage, withFolder, withServed } from './images.ts';

for (const kind of ['ext4', 'ext3', 'ext2', 'xfs', 'btrfs'] as const) contract({ way: 'nbdfuse', kind });
contract({ way: 'debugfs', kind: 'ext4' });
contract({ way: 'debugfs', kind: 'ext2' });
for (const kind of ['vfat', 'ntfs'] as const) contract({ way: '7z', kind });
contract({ way: '7z', kind: 'ext4', oddNames: false });

// Without FUSE, as in most containers: the file system is copied first.
const bare = () => ({ ...thisMachine(), isRoot: false, hasFuse: false });
contract({ way: 'debugfs', kind: 'ext3', machine: bare, words: 'debugfs on a copy' });
contract({ way: '7z', kind: 'vfat', machine: bare, words: '7z on a copy' });

test('a machine that has nothing is told what to install; one folder that can not be written is named', () =>
  withFolder(async (folder) => {
    const nothing = { ...thisMachine(), isRoot: false, hasFuse: false, find: () => null };
    const stateDirectory = `${folder}/state`;
    for (const kind of ['xfs', 'ext4'] as const)
      await withServed(folder, makeImage(folder, kind), async (uri) => {
        const mirror = await openMirror(uri, { stateDirectory, machine: nothing });
        await assert.rejects(mirror.tree(), (error: Error & { code: string; hint: string }) => {
          assert.equal(error.code, 'io');
          assert.match(
            error.message,
            new RegExp(`^the files of this ${kind} can't be reached on this machine$`),
          );
          assert.match(
            error.hint,
            /\n {2}kernel-nbd: it needs root\n {2}nbdfuse: nbdfuse is missing \(install nbdfuse\)\n/,
          );
          const more =
            kind === 'xfs'
              ? /debugfs: it knows ext2, ext3 and ext4, and no xfs/
              : /install e2fsprogs\)\n.*install 7zip\)/;
          assert.match(error.hint, more);
          return true;
        });
        await mirror.close();
        writeFileSync(`${folder}/file`, '');
        await assert.rejects(openMirror(uri, { stateDirectory: `${folder}/file/x` }), {
          code: 'bad-request',
          message: /file\/x can't be made/,
        });
      });
  }));
