// A bench of the tests, run as `node bench-to-end.ts <how> <prefix of its folder>`: it holds a folder, and two programs, one of
// which is still starting; then it ends as it is told to.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { benchFolder, held } from './held.ts';

const [how, prefix] = process.argv.slice(2);

async function start(): Promise<ChildProcess> {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' });
  await once(child, 'spawn');
  process.stdout.write(`started ${child.pid}\n`);
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = once(child, 'close');
  child.kill('SIGKILL');
  await ended;
  process.stdout.write(`stopped ${child.pid}\n`);
}

await using folder = await benchFolder(prefix);
writeFileSync(`${folder.it}/data`, 'x');
await using child = await held(start(), stop);
const slow = Promise.withResolvers<ChildProcess>();
const starting = held(slow.promise, stop);
const begin = async (): Promise<void> => slow.resolve(await start());
switch (how) {
  case 'ends': {
    await begin();
    await using second = await starting;
    assert.notEqual(second.it.pid, child.it.pid);
    break;
  }
  case 'fails':
    await begin();
    await starting;
    throw new Error('it fails as it was told to');
  case 'fails elsewhere':
    await begin();
    void Promise.reject(new Error('it fails elsewhere'));
    await starting;
    await new Promise(() => {});
    break;
  default:
    process.on('SIGTERM', () => void begin());
    process.stdout.write('ready\n');
    await starting;
    throw new Error('a server that has gone');
}
