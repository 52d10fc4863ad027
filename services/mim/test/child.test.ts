// The command line as a child of mim.js, on a machine whose own Node is too old.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Writable } from 'node:stream';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../child.ts', import.meta.url));

test('it ends with the process that started it, however that one ends', async () => {
  // Takes the request and never answers: the command waits.
  const asked = Promise.withResolvers<void>();
  const api = createServer(() => asked.resolve()).listen(0, '127.0.0.1');
  await once(api, 'listening');
  const url = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;
  const child = spawn(process.execPath, [MAIN, '--api', url, 'volume', 'list'], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  });
  const ended = once(child, 'exit');
  await asked.promise;
  assert.equal(child.exitCode, null);
  (child.stdio[3] as Writable).destroy();
  assert.deepEqual(await ended, [null, 'SIGKILL']);
  api.closeAllConnections();
  api.close();
});
