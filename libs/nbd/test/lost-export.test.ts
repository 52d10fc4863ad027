// An export that is lost under its clients: they see the connection end, never an answer to what was in flight.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { Errno, type WriteCommand } from '@midmirror/block-device';
import { type NbdServer, startNbdServer } from '../index.ts';
import { MemoryDevice } from './memory-device.ts';
import { metaQuery, option, RawClient, request, SET_META, takeReplies } from './wire.ts';

const SIZE = 1 << 20;

/** Answers the first sector's writes at once, and holds the others until it is lost. */
class FencedDevice extends MemoryDevice {
  readonly held: WriteCommand[] = [];
  readonly loss = new AbortController();

  override submit(command: WriteCommand): void {
    if (command.startBytes === 0) super.submit(command);
    else this.held.push(command);
  }

  override async flush(): Promise<void> {
    await new Promise<void>((_resolve, reject) => {
      this.loss.signal.addEventListener('abort', () => reject(this.loss.signal.reason as Error));
    });
  }

  lose(): void {
    this.loss.abort(new MidmirrorError('unavailable', 'another process owns the volume'));
    for (const command of this.held.splice(0)) command.complete(Errno.ESHUTDOWN);
  }
}

interface Setting {
  server: NbdServer;
  path: string;
  device: FencedDevice;
  opened: () => number;
}

async function withServer(act: (setting: Setting) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-nbd-`);
  const path = `${folder}/nbd.sock`;
  const device = new FencedDevice(SIZE);
  let opened = 0;
  const server = await startNbdServer({
    listen: { path },
    directory: {
      open: async () => {
        opened += 1;
        return {
          device,
          description: '',
          multiConn: true,
          lost: device.loss.signal,
          contexts: {
            advertised: [],
            open: async () => ({ multiConn: true, blockStatus: async () => [], release: () => {} }),
          },
          release: () => void (opened -= 1),
        };
      },
      list: async () => [],
    },
  });
  try {
    await act({ server, path, device, opened: () => opened });
  } finally {
    await server.close(1000);
    rmSync(folder, { recursive: true });
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition() && turn < 100_000; turn += 1)
    await new Promise<void>((resolve) => setImmediate(resolve));
  assert.ok(condition());
}

test('writes in flight are not answered when their export is lost: the connection ends', () =>
  withServer(async ({ path, device, opened }) => {
    const client = new RawClient(path);
    await client.handshake('db', true);
    client.send(
      request(1, 1, 0n, 512, 0, Buffer.alloc(512, 1)),
      ...[2, 3, 4].map((cookie) => request(1, cookie, 4096n * BigInt(cookie), 4096, 0, Buffer.alloc(4096))),
      request(3, 5, 0n, 0),
    );
    await client.until(() => client.received.length >= 16);
    await until(() => device.held.length === 3);
    device.lose();
    await client.untilClosed();
    assert.deepEqual(
      takeReplies(client.received, () => 0).replies.map(({ cookie, errno }) => [cookie, errno]),
      [[1, 0]],
    );
    await until(() => opened() === 0);
  }));

test('every connection of a lost export ends, those that were still shaking hands too', () =>
  withServer(async ({ path, device, opened }) => {
    let warned = 0;
    process.on('warning', () => (warned += 1));
    const clients = Array.from({ length: 20 }, () => new RawClient(path));
    for (const [i, client] of clients.entries())
      await client.handshake('db', true, i % 2 === 0 ? [] : [option(SET_META, metaQuery('db', 'x-test:1'))]);
    const selecting = new RawClient(path);
    selecting.send(Buffer.from([0, 0, 0, 3]), option(8), option(SET_META, metaQuery('db', 'x-test:1')));
    await until(() => opened() === 21);
    device.lose();
    for (const client of [...clients, selecting]) await client.untilClosed();
    await until(() => opened() === 0);
    const late = new RawClient(path);
    late.send(Buffer.from([0, 0, 0, 3]), option(7, Buffer.from([0, 0, 0, 0, 0, 0])));
    await late.untilClosed();
    await until(() => opened() === 0);
    assert.equal(warned, 0);
  }));

test('a loss while the server closes ends the closing', () =>
  withServer(async ({ path, device, server }) => {
    const client = new RawClient(path);
    await client.handshake('db');
    client.send(request(1, 1, 4096n, 4096, 0, Buffer.alloc(4096)));
    await until(() => device.held.length === 1);
    const closing = server.close(60_000);
    device.lose();
    await closing;
    await client.untilClosed();
    assert.equal(client.received.length, 0);
  }));
