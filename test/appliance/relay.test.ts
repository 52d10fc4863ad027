// Exports that are served elsewhere: a server that passes on what a real appliance has, driven by the clients that
// people have; and an appliance that is killed under a guest that reaches it so.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { type NbdServer, parseNbdUri, readNbdRange, remoteExports, startNbdServer } from '@midmirror/nbd';
import { ApplianceProcess, succeed, withAppliance, withFolder } from './appliance-process.ts';
import { checkPoint, Guest, GUEST_BYTES } from './guest.ts';
import { sampleFile } from './sample-file.ts';

const SIZE = 64 << 20;
const SEED = Number(process.env['MIM_TEST_SEED'] ?? Date.now() % 1_000_000);

interface Relay {
  server: NbdServer;
  uri(name: string): string;
}

/** A server in this process in front of the appliance that `owner` names at the time. */
async function withRelay(
  folder: string,
  owner: () => ApplianceProcess | null,
  act: (relay: Relay) => Promise<void>,
): Promise<void> {
  const path = `${folder}/relay.sock`;
  const server = await startNbdServer({
    listen: { path },
    directory: remoteExports({
      resolve: async () => {
        const process = owner();
        return process === null ? null : { address: parseNbdUri(process.nbd).address };
      },
      list: async () => [{ name: 'db', description: 'passed on' }],
    }),
  });
  try {
    await act({ server, uri: (name) => `nbd+unix:///${name}?socket=${path}` });
  } finally {
    await server.close(3000);
  }
}

function digest(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

test('people’s clients see through it: copy, compare, verify, maps and refusals', () =>
  withAppliance({}, (appliance, folder) =>
    withRelay(
      folder,
      () => appliance,
      async ({ server, uri }) => {
        await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
        sampleFile(`${folder}/a.img`, SIZE);
        await succeed('nbdcopy', ['--connections=4', '--flush', `${folder}/a.img`, uri('db')]);
        await succeed('nbdcopy', ['--connections=4', uri('db'), `${folder}/b.img`]);
        assert.equal(digest(`${folder}/b.img`), digest(`${folder}/a.img`));
        await appliance.post('/volumes/db/marks', { name: 'copied' });
        await fio(uri('db'), folder);
        // The past is the same through it, the present is the same from either side.
        await compare(`${folder}/a.img`, uri('db@mark:copied'));
        await compare(appliance.uri('db'), uri('db'));

        for (const name of ['db', 'db@mark:copied', 'db@latest'])
          assert.deepEqual(await shown(uri(name), name), await shown(appliance.uri(name), name));
        for (const map of ['base:allocation', 'midmirror:changed-since:mark:copied'])
          assert.deepEqual(
            await succeed('nbdinfo', ['--json', `--map=${map}`, uri('db@latest')]),
            await succeed('nbdinfo', ['--json', `--map=${map}`, appliance.uri('db@latest')]),
          );
        assert.match(
          await succeed('/bin/sh', ['-c', `qemu-img info '${uri('db@seq:999999')}' 2>&1 || true`]),
          /seq:999999 is not a point that volume "db" still has.*every write from 0/,
        );
        const parts: Uint8Array[] = [];
        const target = parseNbdUri(uri('db@mark:copied'));
        for await (const part of readNbdRange(target, { offset: 1001, length: 5_000_003 })) parts.push(part);
        assert.ok(Buffer.concat(parts).equals(readFileSync(`${folder}/a.img`).subarray(1001, 5_001_004)));
        while (server.connectionCount > 0) await new Promise((resolve) => setImmediate(resolve));
      },
    ),
  ));

async function fio(uri: string, folder: string): Promise<void> {
  const pattern = ['--rw=randwrite', '--bsrange=512-64k', '--blockalign=512', '--iodepth=32', '--size=32M'];
  const checks = ['--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--fsync=64'];
  await succeed('fio', ['--name=v', '--ioengine=nbd', `--uri=${uri}`, ...pattern, ...checks], {
    cwd: folder,
  });
}

async function compare(one: string, other: string): Promise<void> {
  await succeed('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', one, other]);
}

/** What nbdinfo tells of an export, but for its address. */
async function shown(uri: string, name: string): Promise<unknown> {
  const info = JSON.parse(await succeed('nbdinfo', ['--json', uri])) as {
    exports: Record<string, unknown>[];
  };
  const { uri: _address, ...rest } = info.exports[0]!;
  assert.equal(rest['export-name'], name);
  return rest;
}

test('an appliance killed under its guest: no error, no lost write, and the guest goes on with the next', () =>
  withFolder(async (folder) => {
    const random = new SeededRandom(SEED);
    let appliance = await ApplianceProcess.start(`${folder}/data`);
    try {
      await appliance.post('/volumes', { name: 'db', sizeBytes: GUEST_BYTES });
      await withRelay(
        folder,
        () => appliance,
        async ({ server, uri }) => {
          const guest = new Guest(random);
          await guest.connect(uri('db'));
          for (let round = 0; round < 3; round += 1) {
            await guest.write(1 + random.below(40));
            await guest.flush();
            const ends = guest.write(60 + random.below(60)).then(
              () => null,
              (error: { code: string; message: string }) => error,
            );
            const answered = guest.answered + random.below(50);
            while (guest.answered < answered) await new Promise((resolve) => setImmediate(resolve));
            appliance.kill();
            const error = await ends;
            if (error !== null)
              assert.match(error.message, /has hung up/, `MIM_TEST_SEED=${SEED}: ${error.code}`);
            while (server.connectionCount > 0) await new Promise((resolve) => setImmediate(resolve));
            await appliance.ended;
            appliance = await ApplianceProcess.start(`${folder}/data`);
            const { seq } = await appliance.get<{ seq: number }>('/volumes/db/resolve?at=latest');
            guest.survived(seq);
            await guest.connect(uri('db'));
            await checkPoint(uri('db'), guest, seq);
          }
          await guest.disconnect();
        },
      );
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
