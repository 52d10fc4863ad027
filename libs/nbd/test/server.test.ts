// The server on real sockets, by both ways of receiving: what one client does, however rude, no other one feels.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import { type NbdServer, startNbdServer } from '../index.ts';
import type { NbdLimits } from '../limits.ts';
import { MemoryDevice } from './memory-device.ts';
import { metaQuery, option, RawClient, request, SET_META, u32 } from './wire.ts';

const SIZE = 1 << 20;

interface Setting {
  server: NbdServer;
  path: string;
  device: MemoryDevice;
  opened: () => number;
  /** Contexts that are open, by name. */
  contexts: string[];
  /** What the export's meter was told: bytes of writes, else what happened. */
  metered: (number | 'failed' | 'flushed')[];
}

async function withServer(
  receive: 'direct' | 'events',
  limits: Partial<NbdLimits>,
  act: (setting: Setting) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-nbd-`);
  const path = `${folder}/nbd.sock`;
  const device = new MemoryDevice(SIZE);
  let opened = 0;
  const contexts: string[] = [];
  const metered: Setting['metered'] = [];
  const tell = (what: Setting['metered'][number], seconds: number): void => {
    assert.ok(seconds >= 0 && seconds < 60, `${seconds} s`);
    metered.push(what);
  };
  const server = await startNbdServer({
    listen: { path },
    receive,
    limits,
    directory: {
      open: async (name) => {
        if (name !== 'db') throw new MidmirrorError('not-found', `there is no volume "${name}"`);
        opened += 1;
        return {
          device,
          description: 'a disk',
          multiConn: true,
          meter: {
            wrote: (bytes, seconds) => tell(bytes, seconds),
            failed: () => tell('failed', 0),
            flushed: (seconds) => tell('flushed', seconds),
          },
          contexts: {
            advertised: ['x-test:'],
            open: async (name) => {
              await new Promise<void>((resolve) => setImmediate(resolve));
              if (name === 'x-test:gone')
                throw new MidmirrorError('point-unavailable', 'that moment is gone');
              if (!name.startsWith('x-test:')) return null;
              contexts.push(name);
              return {
                multiConn: true,
                blockStatus: async (_start, length) => [{ lengthBytes: length, flags: 1 }],
                release: () => void contexts.splice(contexts.indexOf(name), 1),
              };
            },
          },
          release: () => void (opened -= 1),
        };
      },
      list: async () => [{ name: 'db', description: 'a disk' }],
    },
  });
  try {
    await act({ server, path, device, opened: () => opened, contexts, metered });
  } finally {
    await server.close(1000);
    rmSync(folder, { recursive: true });
  }
}

for (const receive of ['direct', 'events'] as const) {
  test(`${receive}: writes and reads, structured and simple`, () =>
    withServer(receive, {}, async ({ path, device }) => {
      for (const structured of [false, true]) {
        const client = new RawClient(path);
        await client.handshake('db', structured);
        const data = Buffer.alloc(100_352, structured ? 3 : 5);
        client.send(
          request(1, 1, 512n, data.length, 0, data),
          request(3, 2, 0n, 0),
          request(0, 3, 512n, data.length),
        );
        const replies = await client.replies(3, (cookie) => (cookie === 3 ? data.length : 0));
        assert.deepEqual(
          replies.map(({ errno }) => errno),
          [0, 0, 0],
        );
        assert.ok(replies.find(({ cookie }) => cookie === 3)!.data.equals(data));
        assert.equal(device.bytes[511], 0);
        client.send(request(2, 4, 0n, 0));
        await client.untilClosed();
      }
    }));

  test(`${receive}: the meter is told of each write and flush once, also when answers come late`, () =>
    withServer(receive, { requestsInFlightMax: 2 }, async ({ path, device, metered }) => {
      for (const late of [false, true]) {
        device.late = late;
        const client = new RawClient(path);
        await client.handshake('db');
        client.send(
          request(1, 1, 0n, 4096, 0, Buffer.alloc(4096, 1)),
          request(6, 2, 4096n, 8192), // zeroes carry no data
          request(1, 3, 8192n, 1024, 0, Buffer.alloc(1024, 2)),
          request(1, 4, BigInt(SIZE), 512, 0, Buffer.alloc(512, 3)), // beyond the end
          request(3, 5, 0n, 0),
        );
        await client.replies(5, () => 0);
        assert.deepEqual(metered.splice(0).map(String).sort(), ['0', '1024', '4096', 'failed', 'flushed']);
        client.send(request(2, 6, 0n, 0));
        await client.untilClosed();
      }
    }));

  test(`${receive}: rude clients do not disturb a polite one`, () =>
    withServer(receive, {}, async ({ path, opened }) => {
      const random = new SeededRandom(7);
      const polite = new RawClient(path);
      await polite.handshake('db');
      let cookie = 0;
      for (let round = 0; round < 40; round += 1) {
        const rude = new RawClient(path);
        const noise = Buffer.from(
          Uint8Array.from({ length: 1 + random.below(5000) }, () => random.below(256)),
        );
        if (random.chance(0.5)) await rude.handshake('db', random.chance(0.5));
        if (random.chance(0.3))
          rude.send(request(1, 1, 0n, 65_536)); // a write whose data never comes
        else rude.send(noise);
        if (random.chance(0.5)) rude.socket.destroy();
        cookie += 1;
        const data = Buffer.alloc(4096, 1 + random.below(255));
        polite.send(
          request(1, cookie, BigInt(round * 4096), 4096, 1, data),
          request(0, cookie + 1000, BigInt(round * 4096), 4096),
        );
        const replies = await polite.replies(2, (c) => (c > 1000 ? 4096 : 0));
        assert.ok(replies.find((reply) => reply.cookie === cookie + 1000)!.data.equals(data));
        rude.socket.destroy();
      }
      polite.socket.destroy();
      await polite.untilClosed();
      // What rude clients had open is let go of; the event loop tells when.
      for (let turn = 0; opened() > 0 && turn < 10_000; turn += 1)
        await new Promise<void>((resolve) => setImmediate(resolve));
      assert.equal(opened(), 0, 'every export is released');
    }));

  test(`${receive}: a write cut off in its data changes nothing`, () =>
    withServer(receive, {}, async ({ path, device, opened }) => {
      const client = new RawClient(path);
      await client.handshake('db');
      client.send(request(1, 1, 0n, 8192, 0, Buffer.alloc(5000, 9)));
      client.socket.end();
      await client.untilClosed();
      for (let turn = 0; opened() > 0 && turn < 10_000; turn += 1)
        await new Promise<void>((resolve) => setImmediate(resolve));
      assert.ok(device.bytes.every((byte) => byte === 0));
    }));

  test(`${receive}: at its limits a client waits and everything is answered`, () =>
    withServer(
      receive,
      { requestsInFlightMax: 4, bytesInFlightMax: 32_768, unsentBytesMax: 65_536 },
      async ({ path, device }) => {
        device.late = true;
        const client = new RawClient(path);
        await client.handshake('db');
        for (let i = 0; i < 300; i += 1)
          client.send(
            request(1, i, BigInt((i % 200) * 4096), 4096, 0, Buffer.alloc(4096, 1 + (i % 250))),
            request(0, 1000 + i, 0n, 16_384),
          );
        const replies = await client.replies(600, (cookie) => (cookie >= 1000 ? 16_384 : 0));
        assert.equal(new Set(replies.map(({ cookie }) => cookie)).size, 600);
        assert.ok(replies.every(({ errno }) => errno === 0));
        client.socket.destroy();
      },
    ));
}

test('a client that says nothing is hung up on', () =>
  withServer('direct', { handshakeMsMax: 100 }, async ({ path }) => {
    const client = new RawClient(path);
    await client.untilClosed();
    assert.ok(client.closed);
  }));

test('one connection more than allowed is refused, the others stay', () =>
  withServer('direct', { connectionsMax: 2 }, async ({ path }) => {
    const clients = [new RawClient(path), new RawClient(path)];
    for (const client of clients) await client.handshake('db');
    const third = new RawClient(path);
    await third.untilClosed();
    clients[0]!.send(request(3, 1, 0n, 0));
    assert.equal((await clients[0]!.replies(1, () => 0))[0]!.errno, 0);
    for (const client of clients) client.socket.destroy();
  }));

test('closing answers what is in flight first', () =>
  withServer('direct', {}, async ({ path, device, server }) => {
    device.late = true;
    const client = new RawClient(path);
    await client.handshake('db');
    client.send(request(1, 1, 0n, 4096, 0, Buffer.alloc(4096, 1)), u32(0x25609513));
    while (device.bytes[0] === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    const closing = server.close(1000);
    assert.equal((await client.replies(1, () => 0)).length, 1);
    await closing;
    await client.untilClosed();
  }));

const select = (name: string, ...queries: string[]): Buffer => option(SET_META, metaQuery(name, ...queries));

async function untilNothingIsOpen({ opened, contexts }: Setting): Promise<void> {
  for (let turn = 0; opened() + contexts.length > 0 && turn < 10_000; turn += 1)
    await new Promise<void>((resolve) => setImmediate(resolve));
  assert.deepEqual([opened(), contexts], [0, []], 'everything is let go of');
}

test('contexts live as long as the connection that selected them, the last selection counts', () =>
  withServer('direct', {}, async (setting) => {
    const { path, opened, contexts } = setting;
    const client = new RawClient(path);
    await client.handshake('db', true, [
      select('db', 'x-test:1', 'x-test:2'),
      select('db', 'x-test:3', 'unknown:x', 'base:allocation'),
    ]);
    assert.deepEqual([opened(), contexts], [1, ['x-test:3']]);
    client.send(request(7, 1, 0n, 4096));
    const chunks = await client.replies(2, () => 0);
    assert.deepEqual(
      chunks.map(({ data }) => [data.readUInt32BE(0), data.readUInt32BE(4), data.readUInt32BE(8)]),
      [
        [1, 4096, 0],
        [2, 4096, 1],
      ],
    );
    client.socket.destroy();
    await untilNothingIsOpen(setting);
  }));

test('contexts that are refused, replaced by none, or of a client that leaves are let go of', () =>
  withServer('direct', {}, async (setting) => {
    for (const options of [
      [select('db', 'x-test:1'), select('db', 'x-test:2', 'x-test:gone')],
      [select('db', 'x-test:1'), select('db')],
      [select('db', 'x-test:1'), select('other', 'x-test:1')],
      [select('db', 'x-test:1'), select('db', 'base:allocation')],
      [select('db', 'x-test:1'), option(SET_META, u32(99))],
    ]) {
      const client = new RawClient(setting.path);
      await client.handshake('db', true, options);
      for (let turn = 0; setting.contexts.length > 0 && turn < 10_000; turn += 1)
        await new Promise<void>((resolve) => setImmediate(resolve));
      assert.deepEqual([setting.opened(), setting.contexts], [1, []]);
      client.socket.destroy();
      await untilNothingIsOpen(setting);
    }
    for (let i = 0; i < 20; i += 1) {
      const rude = new RawClient(setting.path);
      rude.send(u32(3), option(8), select('db', 'x-test:1', 'x-test:2'));
      if (i % 2 === 0) await rude.until(() => setting.contexts.length > 0);
      rude.socket.destroy();
      await rude.untilClosed();
      await untilNothingIsOpen(setting);
    }
  }));
