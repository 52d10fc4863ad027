// A check that writes much where little is left: it is stopped before others have nothing any more. Needs root, for a small disk.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { test } from 'node:test';
import { execFileSync } from 'node:child_process';
import { findIsolation, noIsolation } from '../runner/isolation.ts';
import { runCheck } from '../runner/run-check.ts';
import { WrittenOver } from '../runner/written-over.ts';
import { shellCheck, withFolder } from './shell-check.ts';

async function onSmallDisk(act: (disk: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const disk = `${folder}/disk`;
    mkdirSync(disk);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512m', 'midmirror-test', disk]);
    try {
      await act(disk);
    } finally {
      execFileSync('umount', [disk]);
    }
  });
}

test('a clone is not written when little is left', () =>
  onSmallDisk(async (disk) => {
    const over = new WrittenOver(disk, 2 ** 40);
    try {
      const bytes = Buffer.alloc(16 << 20, 1);
      const write = (i: number) =>
        new Promise<string>((resolve) =>
          over.write(i * bytes.length, bytes.length, [bytes], (error) => resolve(error?.code ?? 'written')),
        );
      const said: string[] = [];
      for (let i = 0; i < 6; i += 1) said.push(await write(i));
      assert.deepEqual(said, ['written', 'written', 'written', 'written', 'ENOSPC', 'ENOSPC']);
    } finally {
      await over.close();
    }
  }));

for (const [words, isolation] of [
  ['all of it', await findIsolation()],
  ['none of it', noIsolation],
] as const)
  test(`a check is stopped when little is left where it writes (isolation: ${words})`, () =>
    onSmallDisk(async (disk) => {
      const checked = (script: string) => runCheck(shellCheck(script), { stateDirectory: disk, isolation });
      const much = await checked('dd if=/dev/zero of=much bs=1M count=80 status=none; sleep 60');
      assert.equal(much.verdict, 'cannot-tell');
      assert.match(much.reason, /^it had 80 MiB in its directory, and less than 1 GiB was left there$/);
      assert.deepEqual(much.left, []);
      // What takes little is not to blame, and goes on.
      const little = await checked('dd if=/dev/zero of=little bs=1M count=8 status=none; sleep 1.2');
      assert.deepEqual([little.verdict, little.left], ['good', []]);
    }));
