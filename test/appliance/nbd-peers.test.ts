// Our NBD client against the servers that people have: what they offer is used, what they lack is made up for or
// refused, and their errors arrive.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { Errno, type WriteCommand } from '@midmirror/block-device';
import { connectNbd, type NbdClient, type NbdTarget, RemoteDevice } from '@midmirror/nbd';
import { cleanEnvironment, succeed, withFolder } from './appliance-process.ts';

const SIZE = 16 << 20;
const SEED = Number(process.env['MIM_TEST_SEED'] ?? Date.now() % 1_000_000);

/** A server on a unix socket, which it gets as `-U` or `-k` gives it. */
async function withPeer(
  program: string,
  args: (socket: string, folder: string) => string[],
  act: (target: NbdTarget, peer: ChildProcess, folder: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const socket = `${folder}/peer.sock`;
    writeFileSync(`${folder}/disk.img`, '');
    truncateSync(`${folder}/disk.img`, SIZE);
    const peer = spawn(program, args(socket, folder), { env: cleanEnvironment(), stdio: 'ignore' });
    const ended = new Promise<void>((resolve) => peer.once('close', () => resolve()));
    try {
      let listens = false;
      for (let i = 0; i < 400 && !listens && peer.exitCode === null; i += 1) {
        await pause(25);
        listens = await isListening(socket);
      }
      assert.ok(listens, `${program} ${args(socket, folder).join(' ')} did not start`);
      await act({ address: { path: socket }, exportName: 'disk' }, peer, folder);
    } finally {
      peer.kill('SIGKILL');
      await ended;
    }
  });
}

/** Its socket is there some time before it listens. */
function isListening(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.once('connect', () => connection.destroy());
    connection.once('error', () => resolve(false));
    connection.once('close', (failed) => resolve(!failed));
  });
}

const nbdkit = (...rest: string[]) => {
  return (socket: string): string[] => ['-f', '-U', socket, '-e', 'disk', ...rest];
};

/** Writes, zeroes and reads at random, many at once, against a naive disk. `aligned`: in blocks of so many bytes. */
async function work(client: NbdClient, aligned = 512): Promise<void> {
  const random = new SeededRandom(SEED);
  const twin = Buffer.alloc(SIZE);
  const blocks = SIZE / aligned;
  for (let round = 0; round < 8; round += 1) {
    const asked: Promise<unknown>[] = [];
    for (let i = 0; i < 20; i += 1) {
      // What is in flight together does not overlap: servers may do it in any order.
      const share = Math.floor(blocks / 20);
      const count = 1 + random.below(random.chance(0.3) ? share : 16);
      const at = (i * share + random.below(share - count + 1)) * aligned;
      const length = count * aligned;
      const data = Buffer.alloc(length, 1 + random.below(255));
      const zeroes = random.chance(0.2) && client.facts.canWriteZeroes;
      asked.push(zeroes ? client.zeroes(at, length) : client.write(at, data, random.chance(0.1)));
      twin.fill(zeroes ? 0 : data, at, at + length);
    }
    await Promise.all(asked);
    if (client.facts.canFlush) await client.flush();
  }
  assert.ok((await client.read(0, SIZE)).equals(twin), `MIM_TEST_SEED=${SEED}`);
}

function trim(fua: boolean, complete: (errno: number) => void): WriteCommand {
  return { kind: 'trim', startBytes: 0, lengthBytes: 512, fua, payload: [], payloadCount: 0, complete };
}

const PEERS: [
  what: string,
  program: string,
  args: (socket: string, folder: string) => string[],
  aligned?: number,
][] = [
  ['nbdkit memory', 'nbdkit', nbdkit('memory', String(SIZE))],
  ['nbdkit without structured replies', 'nbdkit', nbdkit('--no-sr', 'memory', String(SIZE))],
  [
    'nbdkit that answers late and out of order',
    'nbdkit',
    nbdkit('--filter=delay', 'memory', String(SIZE), 'delay-read=20ms', 'delay-write=5ms'),
  ],
  [
    'nbdkit that takes 64 KiB at once, in blocks of 4 KiB',
    'nbdkit',
    nbdkit(
      '--filter=blocksize-policy',
      'memory',
      String(SIZE),
      'blocksize-minimum=4096',
      'blocksize-preferred=4096',
      'blocksize-maximum=65536',
      'blocksize-error-policy=error',
    ),
    4096,
  ],
  ['nbdkit without FUA', 'nbdkit', nbdkit('--filter=fua', 'memory', String(SIZE))],
  [
    'qemu-nbd raw',
    'qemu-nbd',
    (socket, folder) => ['-t', '-f', 'raw', '-k', socket, '-x', 'disk', `${folder}/disk.img`],
  ],
];

for (const [what, program, args, aligned] of PEERS)
  test(`${what}: many requests at once are what a naive disk holds`, () =>
    withPeer(program, args, async (target) => {
      const client = await connectNbd(target);
      assert.equal(client.sizeBytes, SIZE);
      await work(client, aligned);
      await client.close();
    }));

test('qemu-nbd serves a dirty bitmap as a context of its own, and allocation beside it', () =>
  withFolder(async (folder) => {
    const image = `${folder}/disk.qcow2`;
    await succeed('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(SIZE)]);
    await succeed('qemu-img', ['bitmap', '--add', '--enable', image, 'changed']);
    await succeed('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 64k', image]);
    const name = 'qemu:dirty-bitmap:changed';
    const args = (socket: string): string[] => [
      '-t',
      '-f',
      'qcow2',
      '-k',
      socket,
      '-x',
      'disk',
      '-r',
      '-B',
      'changed',
      image,
    ];
    await withPeer('qemu-nbd', args, async (target) => {
      const client = await connectNbd(target, { contexts: [name, 'qemu:no-such'], listContexts: true });
      assert.ok(client.facts.contextsAdvertised.includes(name));
      const status = await client.blockStatus(0, 2 << 20);
      assert.deepEqual(status.get(name), [
        { lengthBytes: 1 << 20, flags: 0 },
        { lengthBytes: 64 << 10, flags: 1 },
        { lengthBytes: (1 << 20) - (64 << 10), flags: 0 },
      ]);
      assert.deepEqual(await new RemoteDevice(client).allocation(0, 2 << 20, 2), [
        { lengthBytes: 1 << 20, hole: true },
        { lengthBytes: 64 << 10, hole: false },
      ]);
      await assert.rejects(client.write(0, Buffer.alloc(512)), { message: /read-only/ });
      await client.close();
    });
  }));

test('FUA becomes a flush after the write where a server does not know it', () =>
  withPeer(
    'nbdkit',
    (socket, folder) =>
      nbdkit('--filter=log', '--filter=fua', 'memory', String(SIZE), `logfile=${folder}/log`)(socket),
    async (target, _peer, folder) => {
      const client = await connectNbd(target);
      assert.equal(client.facts.canFua, false);
      const device = new RemoteDevice(client);
      for (const fua of [false, true]) {
        await client.write(0, Buffer.alloc(512, 1), fua);
        const errno = await new Promise<number>((complete) => {
          device.submit(trim(fua, complete));
          device.kick();
        });
        assert.equal(errno, Errno.ok);
      }
      await client.close();
      const done = readFileSync(`${folder}/log`, 'utf8').matchAll(/ (Write|Trim|Flush) id/g);
      assert.deepEqual(
        [...done].map(([, name]) => name),
        ['Write', 'Trim', 'Write', 'Flush', 'Trim', 'Flush'],
      );
    },
  ));

test('errors that a server makes arrive at the requests they belong to', () =>
  withPeer(
    'nbdkit',
    nbdkit('--filter=error', 'memory', String(SIZE), 'error-pwrite=ENOSPC', 'error-pwrite-rate=30%'),
    async (target) => {
      const client = await connectNbd(target);
      const ends = await Promise.allSettled(
        Array.from({ length: 200 }, (_, i) => client.write(i * 4096, Buffer.alloc(4096, 1))),
      );
      const failed = new Set(ends.keys().filter((i) => ends[i]!.status === 'rejected'));
      assert.ok(failed.size > 0 && failed.size < 200);
      for (const end of ends)
        if (end.status === 'rejected') assert.equal((end.reason as { code: string }).code, 'no-space');
      const bytes = await client.read(0, 200 * 4096);
      for (let i = 0; i < 200; i += 1) assert.equal(bytes[i * 4096], failed.has(i) ? 0 : 1);
      await client.close();
    },
  ));

test('a server that can not do what is asked is not taken to have done it', () =>
  withPeer('nbdkit', nbdkit('--filter=nozero', 'memory', String(SIZE)), async (target) => {
    const client = await connectNbd(target);
    assert.equal(client.facts.canWriteZeroes, false);
    await assert.rejects(client.zeroes(0, 512), { message: /does not offer zeroes/ });
    const device = new RemoteDevice(client);
    const errno = await new Promise<number>((complete) => {
      const command: WriteCommand = {
        kind: 'zeroes',
        startBytes: 0,
        lengthBytes: 512,
        fua: false,
        payload: [],
        payloadCount: 0,
        complete,
      };
      device.submit(command);
      device.kick();
    });
    assert.equal(errno, Errno.ENOTSUP);
    await client.close();
  }));

test('a server that is killed while it works: every request ends, with an error', () =>
  withPeer(
    'nbdkit',
    nbdkit('--filter=delay', 'memory', String(SIZE), 'delay-write=60'),
    async (target, peer) => {
      const client = await connectNbd(target);
      const lost = new Promise((resolve) => client.lost.addEventListener('abort', resolve));
      const writes = Array.from({ length: 10 }, (_, i) => client.write(i * 4096, Buffer.alloc(4096, 1)));
      const ends = Promise.allSettled(writes);
      await client.read(0, 512);
      peer.kill('SIGKILL');
      await lost;
      for (const end of await ends)
        assert.equal(end.status === 'rejected' && (end.reason as { code: string }).code, 'unavailable');
    },
  ));
