// A port is its asker's alone, also in other processes and while nothing listens on it, until the asker is gone.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { freePort } from '../free-port.ts';

/** A process that asks for a port, has nobody listen on it or listens itself, and lives on. */
async function asker(act: 'claims' | 'listens') {
  const program = {
    claims: `
      const { freePort } = await import('${new URL('../free-port.ts', import.meta.url)}');
      console.log(await freePort());
      setInterval(() => {}, 1000);`,
    listens: `
      const listen = () => {
        const port = 20_000 + Math.floor(Math.random() * 12_000);
        const server = require('node:net').createServer();
        server.once('error', listen).listen(port, '127.0.0.1', () => console.log(port));
      };
      listen();`,
  }[act];
  const child = spawn(
    process.execPath,
    [`--input-type=${act === 'claims' ? 'module' : 'commonjs'}`, '-e', program],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await once(child, 'close');
  };
  return { port: Number(said.toString()), end };
}

/** What `freePort` gives when it tries this port first. */
async function givenAfter(first: number): Promise<number> {
  const random = Math.random;
  try {
    let tried = false;
    Math.random = () => {
      if (tried) return random();
      tried = true;
      return (first - 20_000 + 0.5) / 12_768;
    };
    return await freePort();
  } finally {
    Math.random = random;
  }
}

for (const act of ['claims', 'listens'] as const)
  test(`a port that another process ${act} is not given while that lives`, async () => {
    const { port, end } = await asker(act);
    assert.notEqual(await givenAfter(port), port);
    await end();
    assert.equal(await givenAfter(port), port);
    assert.notEqual(await givenAfter(port), port, 'not twice in one process either');
  });
