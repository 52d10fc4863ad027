// A server that passes on what another one serves: names, sizes, contexts, refusals and losses are the other one's.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import type { ExportDirectory } from '@midmirror/block-device';
import {
  connectNbd,
  type NbdServer,
  type NbdTarget,
  remoteExports,
  startNbdServer,
  type Upstream,
} from '../index.ts';
import { MemoryDevice } from './memory-device.ts';
import { go, LIST_META, metaQuery, option, RawClient, request, SET_META, u32 } from './wire.ts';

const SIZE = 1 << 20;

interface Setting {
  device: MemoryDevice;
  /** Names of what is open at the owner, with the contexts. */
  open: string[];
  owner: NbdServer;
  relay: NbdServer;
  path: string;
  target: (exportName: string) => NbdTarget;
  /** What the relay knows of an owner's end. */
  moved: AbortController;
  closing: AbortController;
}

function directory(device: MemoryDevice, open: string[]): ExportDirectory {
  const take = (name: string): (() => void) => {
    open.push(name);
    return () => void open.splice(open.indexOf(name), 1);
  };
  return {
    list: async () => [],
    open: async (name) => {
      if (name === 'db@gone') throw new MidmirrorError('point-unavailable', 'that moment is gone');
      if (name !== 'db' && name !== 'db@1')
        throw new MidmirrorError('conflict', 'damaged', { hint: 'rebuild' });
      return {
        device: name === 'db' ? device : new MemoryDevice(SIZE / 2, true),
        description: `this is ${name}`,
        multiConn: name === 'db',
        contexts: {
          advertised: name === 'db' ? [] : ['x-test:'],
          open: async (context) => {
            if (context === 'x-test:gone') throw new MidmirrorError('not-found', 'that one is gone');
            if (!context.startsWith('x-test:')) return null;
            return {
              multiConn: true,
              blockStatus: async (_start, length) => [
                { lengthBytes: 512, flags: context.length },
                { lengthBytes: length - 512, flags: 0 },
              ],
              release: take(context),
            };
          },
        },
        release: take(name),
      };
    },
  };
}

async function withRelay(act: (setting: Setting) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-nbd-`);
  const device = new MemoryDevice(SIZE);
  const open: string[] = [];
  const moved = new AbortController();
  const closing = new AbortController();
  const owner = await startNbdServer({
    listen: { path: `${folder}/owner.sock` },
    directory: directory(device, open),
  });
  const resolve = async (name: string): Promise<Upstream | null> => {
    if (name === 'nobody') return null;
    const path = name === 'unreachable' ? `${folder}/none.sock` : `${folder}/owner.sock`;
    return { address: { path }, lost: moved.signal };
  };
  const path = `${folder}/relay.sock`;
  const relay = await startNbdServer({
    listen: { path },
    directory: remoteExports({ resolve, list: async () => [], signal: closing.signal }),
  });
  const target = (exportName: string): NbdTarget => ({ address: { path }, exportName });
  try {
    await act({ device, open, owner, relay, path, target, moved, closing });
  } finally {
    await relay.close(1000);
    await owner.close(1000);
    rmSync(folder, { recursive: true });
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition() && turn < 100_000; turn += 1)
    await new Promise<void>((resolve) => setImmediate(resolve));
  assert.ok(condition());
}

test('what the owner tells of an export is what the client hears', () =>
  withRelay(async ({ target, open }) => {
    const live = await connectNbd(target('db'));
    const { sizeBytes, readOnly, multiConn, description } = live.facts;
    assert.deepEqual([sizeBytes, readOnly, multiConn, description], [SIZE, false, true, 'this is db']);
    const past = await connectNbd(target('db@1'));
    assert.deepEqual(
      [past.facts.sizeBytes, past.facts.readOnly, past.facts.multiConn, past.facts.description],
      [SIZE / 2, true, false, 'this is db@1'],
    );
    await live.write(4096, Buffer.alloc(8192, 5), true);
    await live.zeroes(4096, 512);
    await live.flush();
    const bytes = await live.read(0, SIZE);
    assert.deepEqual([bytes[4096], bytes[4608], bytes[12_288]], [0, 5, 0]);
    await assert.rejects(past.write(0, Buffer.alloc(512)), { code: 'conflict' });
    await Promise.all([live.close(), past.close()]);
    await until(() => open.length === 0);
  }));

test('a refusal arrives with the kind and the words that the owner gave it', () =>
  withRelay(async ({ target, open }) => {
    for (const [name, code, message] of [
      ['db@gone', 'not-found', /^that moment is gone$/],
      ['broken', 'io', /^damaged \(rebuild\)$/],
      ['nobody', 'not-found', /^there is no volume or clone "nobody"$/],
      ['unreachable', 'unavailable', /none\.sock can not be talked to/],
    ] as const)
      await assert.rejects(connectNbd(target(name)), { code, message });
    const contexts = ['x-test:gone'];
    await assert.rejects(connectNbd(target('db@1'), { contexts }), {
      code: 'bad-request',
      message: 'that one is gone',
    });
    await until(() => open.length === 0);
  }));

test('contexts are advertised, selected and answered as the owner has them', () =>
  withRelay(async ({ target, open }) => {
    const client = await connectNbd(target('db@1'), {
      contexts: ['x-test:ab', 'x-test:abc', 'unknown:x'],
      listContexts: true,
    });
    assert.deepEqual(client.facts.contextsAdvertised, ['base:allocation', 'x-test:']);
    assert.deepEqual(open.toSorted(), ['db@1', 'x-test:ab', 'x-test:abc']);
    const status = await client.blockStatus(0, 4096);
    assert.deepEqual(
      [...status],
      [
        ['base:allocation', [{ lengthBytes: 4096, flags: 0 }]],
        [
          'x-test:ab',
          [
            { lengthBytes: 512, flags: 9 },
            { lengthBytes: 3584, flags: 0 },
          ],
        ],
        [
          'x-test:abc',
          [
            { lengthBytes: 512, flags: 10 },
            { lengthBytes: 3584, flags: 0 },
          ],
        ],
      ],
    );
    assert.equal((await client.blockStatus(0, 4096, true)).get('x-test:ab')!.length, 1);
    await client.close();
    await until(() => open.length === 0);
  }));

test('a client that leaves in the middle of anything leaves nothing open at the owner', () =>
  withRelay(async ({ path, open, relay, owner }) => {
    for (const options of [
      [option(SET_META, metaQuery('db@1', 'x-test:1'))],
      [option(LIST_META, metaQuery('db@1'))],
      [option(SET_META, metaQuery('db@1', 'x-test:1')), go('db@1')],
      [go('db')],
    ]) {
      const rude = new RawClient(path);
      rude.send(u32(3), option(8), ...options);
      if (options.length === 1) await rude.until(() => rude.received.length > 60);
      rude.socket.destroy();
      await rude.untilClosed();
    }
    await until(() => relay.connectionCount + owner.connectionCount + open.length === 0);
  }));

/** A client of the relay with writes that the owner holds. */
async function withWritesInFlight({ path, device }: Setting, count: number): Promise<RawClient> {
  device.kick = () => {};
  const client = new RawClient(path);
  await client.handshake('db', true);
  for (let cookie = 1; cookie <= count; cookie += 1)
    client.send(request(1, cookie, BigInt(cookie) * 4096n, 4096, 0, Buffer.alloc(4096, cookie)));
  await until(() => device.bytes[count * 4096] === count);
  return client;
}

test('an owner that goes, or is known to have moved: the client sees its connection end, no error', async () => {
  for (const end of ['owner', 'moved', 'closing'] as const)
    await withRelay(async (setting) => {
      const { owner, moved, closing, device, relay } = setting;
      const client = await withWritesInFlight(setting, 3);
      let owned: Promise<void> | null = null;
      if (end === 'moved') moved.abort(new MidmirrorError('unavailable', 'its owner is gone'));
      else if (end === 'closing') closing.abort();
      else owned = owner.close(1);
      await client.untilClosed();
      assert.equal(client.received.length, 0, `${end}: nothing is answered`);
      await until(() => relay.connectionCount === 0);
      MemoryDevice.prototype.kick.call(device);
      await owned;
    });
});
