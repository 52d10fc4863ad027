// Settings from the environment, and the lock of a data directory.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import {
  bytes,
  listen,
  lockDirectory,
  lockJob,
  readSettings,
  shareDirectory,
  text,
  whole,
} from '../index.ts';

const settings = {
  MIM_A: text('x'),
  MIM_N: whole(5, 1, 9),
  MIM_B: bytes(1024, 512, 1 << 30),
  MIM_L: listen({ host: '127.0.0.1', port: 1 }),
};

test('defaults, values and units', () => {
  assert.deepEqual(readSettings({}, settings), {
    MIM_A: 'x',
    MIM_N: 5,
    MIM_B: 1024,
    MIM_L: { host: '127.0.0.1', port: 1 },
  });
  const given = readSettings({ MIM_N: '9', MIM_B: '2MiB', MIM_L: '[::1]:80', OTHER: 'y' }, settings);
  assert.deepEqual(given, { MIM_A: 'x', MIM_N: 9, MIM_B: 2 << 20, MIM_L: { host: '::1', port: 80 } });
  assert.deepEqual(readSettings({ MIM_L: 'unix:/run/x.sock' }, settings).MIM_L, { path: '/run/x.sock' });
});

test('a wrong value or an unknown name is refused, naming it', () => {
  for (const [name, value] of [
    ['MIM_N', '0'],
    ['MIM_N', '10'],
    ['MIM_N', ''],
    ['MIM_N', '1.5'],
    ['MIM_B', '1'],
    ['MIM_B', 'many'],
    ['MIM_L', 'localhost'],
    ['MIM_L', ':80'],
    ['MIM_L', 'h:99999'],
    ['MIM_X', '1'],
  ]) {
    assert.throws(() => readSettings({ [name!]: value }, settings), new RegExp(name!));
  }
});

test('a directory is locked once, and again when it is let go', () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-lock-`);
  const lock = lockDirectory(folder);
  assert.throws(() => lockDirectory(folder), new RegExp(`in use by process ${process.pid}`));
  lock.release();
  lockDirectory(folder).release();
  rmSync(folder, { recursive: true });
});

test('several processes share a directory, or one has it for itself; of a job there is one', () => {
  const folder = mkdtempSync(`${tmpdir()}/mim-lock-`);
  const first = shareDirectory(folder);
  const second = shareDirectory(folder);
  assert.throws(() => lockDirectory(folder), /in use/);
  const job = lockJob(folder, 'synchronizer');
  assert.throws(() => lockJob(folder, 'synchronizer'), /a synchronizer works on .* already by process/);
  lockJob(folder, 'mapping-index').release();
  job.release();
  lockJob(folder, 'synchronizer').release();
  first.release();
  second.release();
  const alone = lockDirectory(folder);
  assert.throws(() => shareDirectory(folder), /for itself/);
  alone.release();
  rmSync(folder, { recursive: true });
});
