// Commands on files that are ended in the middle: nothing stays mounted, or the next command undoes it.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { afterEach, test } from 'node:test';
import { makeImage } from '../../libs/mirror-files/test/images.ts';
import { cleanEnvironment, ROOT, run, withAppliance } from '../appliance/appliance-process.ts';
import { FilesUnderTest } from './files-under-test.ts';

const begun: ChildProcess[] = [];
afterEach(() => begun.splice(0).forEach((child) => void child.kill('SIGKILL')));

test('Ctrl-C, a closed pipe and kill -9 in the middle of a file', () =>
  withAppliance({}, async (appliance, folder) => {
    const files = new FilesUnderTest(appliance, folder);
    await files.fill('db', makeImage(folder, 'ext4'), 48 << 20);
    const env = cleanEnvironment({ MIM_FILES_DIR: files.stateDirectory, MIM_API: appliance.api });
    /** Prints and is not read: it stands in the middle once something has come. */
    const begin = async (): Promise<{ kill: (signal: NodeJS.Signals) => void; ended: Promise<string> }> => {
      const args = ['services/mim/main.ts', 'cat', 'db@latest:/big.bin'];
      const child = spawn(process.execPath, args, { env, cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
      let errors = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
      begun.push(child);
      const ended = new Promise<string>((resolve) =>
        child.on('exit', (status, signal) => {
          child.stdout.destroy();
          resolve(`${status ?? signal}: ${errors}`);
        }),
      );
      await new Promise((resolve) => child.stdout.once('readable', resolve));
      return { kill: (signal) => void child.kill(signal), ended };
    };
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      const { kill, ended } = await begin();
      assert.ok(readdirSync(files.stateDirectory).length > 0);
      kill(signal);
      assert.match(await ended, new RegExp(`^${signal}: db as of write \\d[^\n]*\n$`));
      files.nothingLeft();
    }
    const piped = await run(
      '/bin/sh',
      ['-c', `'${process.execPath}' services/mim/main.ts cat db@latest:/big.bin | head -c 10 | wc -c`],
      {
        env: { MIM_FILES_DIR: files.stateDirectory, MIM_API: appliance.api },
      },
    );
    assert.deepEqual([piped.status, piped.stdout.trim()], [0, '10'], piped.stderr);
    assert.match(piped.stderr, /^db as of write \d+, .*\n$/);
    files.nothingLeft();

    const { kill, ended } = await begin();
    kill('SIGKILL');
    await ended;
    assert.ok(readdirSync(files.stateDirectory).length > 0, 'it is left');
    const next = await files.mim('ls', 'db@latest:/etc');
    assert.equal(next.status, 0, next.stderr);
    assert.match(next.stderr, /what a process that was killed has left is undone/);
    files.nothingLeft();
  }));
