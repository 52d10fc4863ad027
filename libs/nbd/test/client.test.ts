// The client on real sockets: against our own server, and against servers that are silent, rude or gone. What it can
// not have is an error that says why, and never a wait without end.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdTarget, parseNbdUri, readNbdRange, startNbdServer } from '../index.ts';
import { MemoryDevice } from './memory-device.ts';
import { u16 } from './wire.ts';

const SIZE = 4 << 20;
const SEED = Number(process.env['MIM_TEST_SEED'] ?? Date.now() % 1_000_000);

interface Setting {
  device: MemoryDevice;
  target: NbdTarget;
  connections: () => number;
  close: () => Promise<void>;
}

async function withServer(act: (setting: Setting) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-nbd-`);
  const device = new MemoryDevice(SIZE);
  const address = { path: `${folder}/nbd.sock` };
  const server = await startNbdServer({
    listen: address,
    directory: {
      open: async (name) => {
        if (name !== 'db') throw new MidmirrorError('not-found', `there is no volume "${name}"`);
        return { device, description: 'a disk', multiConn: true, release: () => {} };
      },
      list: async () => [],
    },
  });
  const target = { address, exportName: 'db' };
  const close = (): Promise<void> => server.close(1000);
  try {
    await act({ device, target, connections: () => server.connectionCount, close });
  } finally {
    await close();
    rmSync(folder, { recursive: true });
  }
}

/** A server of nothing but what `serve` does with each connection. */
async function withOdd(
  serve: (socket: net.Socket) => void,
  act: (target: NbdTarget) => Promise<void>,
): Promise<void> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.resume();
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  try {
    await act({ address: { host: '127.0.0.1', port }, exportName: 'db' });
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

test('addresses of exports, as people write them', () => {
  for (const [uri, target] of [
    ['nbd://host/db', { address: { host: 'host', port: 10809 }, exportName: 'db' }],
    ['nbd://[::1]:99/db@-5m', { address: { host: '::1', port: 99 }, exportName: 'db@-5m' }],
    ['nbd://127.0.0.1', { address: { host: '127.0.0.1', port: 10809 }, exportName: '' }],
    ['nbd+unix:///a%20b?socket=/run/x.sock', { address: { path: '/run/x.sock' }, exportName: 'a b' }],
  ] as const)
    assert.deepEqual(parseNbdUri(uri), target);
  for (const uri of ['', 'host', 'http://host/db', 'nbd:///db', 'nbd+unix:///db', 'nbd://host/%zz'])
    assert.throws(() => parseNbdUri(uri), { code: 'bad-request' });
});

test('writes and reads of many at once are what a naive disk holds', () =>
  withServer(async ({ device, target }) => {
    const random = new SeededRandom(SEED);
    for (const late of [false, true]) {
      device.late = late;
      const client = await connectNbd(target, {
        limits: { bytesInFlightMax: 300_000, requestsInFlightMax: 7 },
      });
      assert.equal(client.sizeBytes, SIZE);
      const twin = Buffer.from(device.bytes);
      const asked: Promise<unknown>[] = [];
      for (let i = 0; i < 300; i += 1) {
        const length = 512 * (1 + random.below(random.chance(0.1) ? 1000 : 20));
        const start = 512 * random.below((SIZE - length) / 512);
        const data = Buffer.alloc(length, 1 + random.below(255));
        const kind = random.below(4);
        if (kind < 2) asked.push(client.write(start, data, random.chance(0.1)));
        else asked.push(kind === 2 ? client.zeroes(start, length) : client.trim(start, length));
        twin.fill(kind < 2 ? data : 0, start, start + length);
        if (random.chance(0.1)) asked.push(client.flush());
        if (random.chance(0.2)) await Promise.all(asked.splice(0));
      }
      await Promise.all(asked);
      assert.ok((await client.read(0, SIZE)).equals(twin), `MIM_TEST_SEED=${SEED}`);
      await assert.rejects(client.read(SIZE, 512), { code: 'bad-request' });
      await assert.rejects(client.write(SIZE, Buffer.alloc(512)), { code: 'no-space' });
      await client.close();
    }
  }));

test('what is refused, not there or cancelled is an error that says so', () =>
  withServer(async ({ target }) => {
    await assert.rejects(connectNbd({ ...target, exportName: 'other' }), {
      code: 'not-found',
      message: 'there is no volume "other"',
    });
    const nobody = { address: { path: '/nowhere/nbd.sock' }, exportName: 'db' };
    await assert.rejects(connectNbd(nobody), { code: 'unavailable', message: /\/nowhere.*ENOENT/ });
    const signal = AbortSignal.abort(new MidmirrorError('unavailable', 'no longer wanted'));
    await assert.rejects(connectNbd(target, { signal }), { message: 'no longer wanted' });
  }));

test('a server that hangs up: everything in flight fails once it is known to be lost', () =>
  withServer(async ({ device, target, close }) => {
    device.kick = () => {};
    const client = await connectNbd(target);
    const writes = [1, 2, 3].map((fill) => client.write(0, Buffer.alloc(4096, fill)));
    const order: string[] = [];
    client.lost.addEventListener('abort', () => order.push('lost'));
    const failures = writes.map((write) => write.catch((error: MidmirrorError) => order.push(error.code)));
    while (device.bytes[0] !== 3) await new Promise((resolve) => setImmediate(resolve));
    // Its requests are never done, so it hangs up at the deadline, and ends when they are.
    const closing = close();
    await Promise.all(failures);
    assert.deepEqual(order, ['lost', 'unavailable', 'unavailable', 'unavailable']);
    await assert.rejects(client.read(0, 512), { code: 'unavailable' });
    await client.close();
    MemoryDevice.prototype.kick.call(device);
    await closing;
  }));

test('a cancelled connection fails what is in flight', () =>
  withServer(async ({ device, target, connections }) => {
    device.kick = () => {};
    const cancel = new AbortController();
    const client = await connectNbd(target, { signal: cancel.signal });
    const write = client.write(0, Buffer.alloc(4096, 1));
    while (device.bytes[0] !== 1) await new Promise((resolve) => setImmediate(resolve));
    cancel.abort(new MidmirrorError('unavailable', 'enough'));
    await assert.rejects(write, { message: 'enough' });
    MemoryDevice.prototype.kick.call(device);
    while (connections() > 0) await new Promise((resolve) => setImmediate(resolve));
  }));

test('silent, slow and rude servers are given up', async () => {
  const greeting = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]);
  const limits = { handshakeMsMax: 200, closeMsMax: 200 };
  await withOdd(
    () => {},
    (target) =>
      assert.rejects(connectNbd(target, { limits }), { code: 'unavailable', message: /within 0.2 s/ }),
  );
  await withOdd(
    (socket) => socket.write(greeting),
    (target) => assert.rejects(connectNbd(target, { limits }), { message: /within 0.2 s/ }),
  );
  await withOdd(
    (socket) => socket.end(greeting),
    (target) => assert.rejects(connectNbd(target, { limits }), { code: 'unavailable' }),
  );
  const random = new SeededRandom(SEED);
  for (let i = 0; i < 30; i += 1) {
    const noise = Buffer.from(Uint8Array.from({ length: 2000 }, () => random.below(256)));
    await withOdd(
      (socket) => socket.end(Buffer.concat(random.chance(0.5) ? [greeting, noise] : [noise])),
      (target) =>
        assert.rejects(connectNbd(target, { limits }), MidmirrorError, `MIM_TEST_SEED=${SEED}, server ${i}`),
    );
  }
});

test('a range of any bytes is read as a stream', () =>
  withServer(async ({ device, target, connections }) => {
    for (let i = 0; i < SIZE; i += 1) device.bytes[i] = (i * 7 + (i >> 9)) % 251;
    const random = new SeededRandom(SEED);
    for (let round = 0; round < 20; round += 1) {
      const offset = random.below(SIZE);
      const length = round === 0 ? SIZE - offset : random.below(SIZE - offset) + 1;
      const parts: Uint8Array[] = [];
      for await (const part of readNbdRange(target, { offset, length })) parts.push(part);
      assert.ok(
        Buffer.concat(parts).equals(device.bytes.subarray(offset, offset + length)),
        `MIM_TEST_SEED=${SEED}`,
      );
    }
    for await (const part of readNbdRange(target, { offset: 0, length: SIZE })) {
      assert.ok(part.length < SIZE);
      break;
    }
    const outside = readNbdRange(target, { offset: SIZE - 10, length: 11 });
    await assert.rejects(outside.next(), { code: 'bad-request' });
    const held: (() => void)[] = [];
    device.read = (start, length, bytes, at) =>
      start === 0
        ? MemoryDevice.prototype.read.call(device, start, length, bytes, at)
        : new Promise((resolve) => held.push(resolve));
    const cancel = new AbortController();
    const cancelled = readNbdRange(target, { offset: 0, length: SIZE }, { signal: cancel.signal });
    await cancelled.next();
    cancel.abort(new MidmirrorError('unavailable', 'the reader has left'));
    await assert.rejects(
      async () => {
        for await (const part of cancelled) assert.ok(part.length > 0);
      },
      { message: 'the reader has left' },
    );
    for (const answer of held) answer();
    while (connections() > 0) await new Promise((resolve) => setImmediate(resolve));
  }));
