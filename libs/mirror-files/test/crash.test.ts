// Processes that are killed with a mirror open, and servers that go away under one.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { afterEach, test } from 'node:test';
import { openMirror, undoStale, thisMachine, type Way } from '../index.ts';
import { mountsUnder } from '../session.ts';
import { loopFiles, readAll } from './contract.ts';
import { makeImage, withFolder, withServed } from './images.ts';
import { nbdMachine } from './nbd-machine.ts';

const HOLD = new URL('./hold-open.ts', import.meta.url).pathname;

/** Resolves once it holds the mirror. */
const held: ChildProcess[] = [];
afterEach(() => held.splice(0).forEach((child) => void child.kill('SIGKILL')));

async function hold(...args: string[]): Promise<{ child: ChildProcess; directory: string | null }> {
  const child = spawn(process.execPath, [HOLD, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  held.push(child);
  const first = await new Promise<string>((resolve, reject) => {
    child.stdout!.setEncoding('utf8').once('data', resolve);
    child.on('exit', (status) => reject(new Error(`it ended with ${status}`)));
  });
  return { child, ...(JSON.parse(first) as { directory: string | null }) };
}

async function kill(child: ChildProcess): Promise<void> {
  const over = new Promise((resolve) => child.on('exit', resolve));
  child.kill('SIGKILL');
  await over;
}

function processesNaming(folder: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((id) => {
      try {
        return [readFileSync(`/proc/${id}/cmdline`, 'utf8').replaceAll('\0', ' ')];
      } catch {
        return [];
      }
    })
    .filter((line) => line.includes(`${folder}/state`));
}

for (const way of ['nbdfuse', 'debugfs', 'kernel-nbd'] as Way[])
  test(`what a killed process has left is undone by the next (${way})`, () =>
    withFolder(async (made) => {
      const folder = realpathSync(made);
      const stateDirectory = `${folder}/state`;
      const other = nbdMachine(folder);
      try {
        await withServed(folder, makeImage(folder, 'ext4'), async (uri) => {
          const args = [uri, stateDirectory, way, ...(way === 'kernel-nbd' ? [folder] : [])];
          const alive = await hold(...args);
          const { child, directory } = await hold(...args);
          await kill(child);
          const left = mountsUnder(stateDirectory).length;
          assert.ok(left > 0, 'mounts are left');
          if (directory !== null) assert.ok(existsSync(directory));
          const told: string[] = [];
          const tell = (message: string): number => told.push(message);
          // Two at once.
          await Promise.all([
            undoStale(stateDirectory, thisMachine(), tell),
            undoStale(stateDirectory, thisMachine(), tell),
          ]);
          assert.match(told.join('\n'), /^\S+: what a process that was killed has left is undone$/);
          assert.equal(
            mountsUnder(stateDirectory).length,
            left / 2,
            'those of the one that lives are left alone',
          );
          if (alive.directory !== null)
            assert.equal(readFileSync(`${alive.directory}/etc/hosts`, 'utf8'), '127.0.0.1 localhost\n');
          await kill(alive.child);
          const mirror = await openMirror(uri, { stateDirectory, ways: ['debugfs'], tell });
          assert.deepEqual(told.length, 2);
          assert.equal(mountsUnder(stateDirectory).length, 0);
          await mirror.close();
          assert.deepEqual(readdirSync(stateDirectory), []);
          assert.deepEqual(processesNaming(folder), []);
          assert.ok(!loopFiles().some((file) => file.startsWith(folder)));
        });
      } finally {
        other.remove();
      }
    }));

test('a program that still looks at a mount does not keep it from being closed', () =>
  withFolder(async (folder) => {
    const stateDirectory = `${folder}/state`;
    await withServed(folder, makeImage(folder, 'ext4'), async (uri) => {
      const mirror = await openMirror(uri, { stateDirectory, ways: ['nbdfuse'] });
      const { directory } = await mirror.tree();
      const looks = spawn('sleep', ['100'], { cwd: directory! });
      const over = new Promise((resolve) => looks.on('exit', resolve));
      try {
        await mirror.close();
        assert.deepEqual(readdirSync(stateDirectory), []);
      } finally {
        looks.kill('SIGKILL');
        await over;
      }
    });
  }));

for (const way of ['nbdfuse', 'debugfs'] as Way[])
  test(`a server that goes away: reads fail, nothing hangs, nothing is left (${way})`, () =>
    withFolder(async (folder) => {
      const stateDirectory = `${folder}/state`;
      await withServed(folder, makeImage(folder, 'ext4'), async (uri, end) => {
        const mirror = await openMirror(uri, { stateDirectory, ways: [way] });
        const tree = await mirror.tree();
        const lost = new Promise((resolve) => mirror.lost.addEventListener('abort', resolve));
        end();
        await lost;
        await assert.rejects(readAll(tree, '/big.bin'), { code: 'unavailable' });
        await assert.rejects(mirror.tree(), { code: 'unavailable' });
        await mirror.close();
        assert.deepEqual(readdirSync(stateDirectory), []);
      });
      mkdirSync(`${folder}/nothing`);
      const away = `nbd+unix:///?socket=${folder}/nothing/here`;
      await assert.rejects(openMirror(away, { stateDirectory }), { code: 'unavailable' });
      assert.deepEqual(readdirSync(stateDirectory), []);
    }));
