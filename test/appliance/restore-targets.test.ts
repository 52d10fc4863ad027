// Restores onto what is no plain file: NBD exports, block devices (loop, needs root), a disk that fills up; what is in
// use, read-only or of another size is refused.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { cleanEnvironment, run, succeed, withAppliance } from './appliance-process.ts';
import {
  assertExportHolds,
  assertHolds,
  Guest,
  MIB,
  Restores,
  until,
  scattered,
} from './restore-under-test.ts';

const SIZE = 48 * MIB;

/** Another NBD server, for as long as `act` runs. */
async function withServer(
  folder: string,
  program: string,
  args: (socket: string) => string[],
  act: (uri: string, server: ChildProcess) => Promise<void>,
): Promise<void> {
  const socket = `${folder}/${program}.sock`;
  const server = spawn(program, args(socket), { env: cleanEnvironment(), stdio: 'ignore' });
  const ended = new Promise((resolve) => server.once('close', resolve));
  try {
    while (!existsSync(socket)) {
      assert.equal(server.exitCode, null, `${program} ended`);
      await pause(10);
    }
    await act(`nbd+unix:///?socket=${socket}`, server);
  } finally {
    server.kill('SIGKILL');
    await ended;
    rmSync(socket, { force: true });
  }
}

test('onto the exports of other NBD servers', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const guest = await Guest.connect(appliance.uri('db'));
    await guest.write(3 * MIB, 9 * MIB);
    await guest.scatter(40);
    const bytes = await guest.close();
    const restores = new Restores(appliance, folder);
    const disk = `${folder}/other.img`;
    writeFileSync(disk, Buffer.alloc(SIZE, 9));
    const kit = (socket: string): string[] => ['-f', '-U', socket, 'file', disk];
    await withServer(folder, 'nbdkit', kit, async (uri) => {
      const ran = await restores.run('db', '--at', 'latest', '--to', uri, '--yes');
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stdout, /whether from storage or from memory, nothing tells here/);
      await assertExportHolds(uri, bytes);
      assert.deepEqual(
        readdirSync(`${folder}/state`).filter((name) => name.endsWith('.mim-restore')),
        [],
      );
    });
    assertHolds(disk, bytes);

    writeFileSync(disk, Buffer.alloc(SIZE, 9));
    // Takes no flush and no zeroes, and only whole blocks.
    const poor = (socket: string): string[] =>
      ['-f', '-U', socket, '--filter=nozero', '--filter=blocksize-policy', 'file', disk].concat([
        'blocksize-minimum=4096',
        'blocksize-preferred=4096',
        'blocksize-maximum=256k',
        'blocksize-error-policy=error',
      ]);
    await withServer(folder, 'nbdkit', poor, async (uri) => {
      await restores.lines('db', '--at', 'latest', '--to', uri, '--yes');
      await assertExportHolds(uri, bytes);
    });

    const readOnly = (socket: string): string[] => ['-r', '-f', 'raw', '-k', socket, disk];
    await withServer(folder, 'qemu-nbd', readOnly, (uri) =>
      restores.fails(2, /is read-only/, 'db', '--at', 'latest', '--to', uri, '--yes').then(() => {}),
    );
    truncateSync(disk, SIZE - MIB);
    await withServer(folder, 'nbdkit', kit, (uri) =>
      restores.fails(2, /too small/, 'db', '--at', 'latest', '--to', uri, '--yes').then(() => {}),
    );
    await restores.fails(
      1,
      /can not be talked to|can not be reached/,
      ...['db', '--at', 'latest', '--to', `nbd+unix:///?socket=${folder}/nobody`, '--yes'],
    );
  }));

test('an NBD target that dies in the middle is left incomplete, and goes on when it is back', () =>
  withAppliance({}, async (appliance, folder) => {
    const size = 192 * MIB;
    await appliance.post('/volumes', { name: 'db', sizeBytes: size });
    const guest = await Guest.connect(appliance.uri('db'));
    for (let at = 0; at < size; at += 8 * MIB) await guest.write(at, 8 * MIB);
    const bytes = await guest.close();
    const restores = new Restores(appliance, folder);
    const disk = `${folder}/other.img`;
    writeFileSync(disk, Buffer.alloc(size));
    const words = (uri: string): string[] => ['db', '--at', 'latest', '--to', uri, '--yes'];
    const slow = (socket: string): string[] => ['-f', '-U', socket, '--filter=rate', 'file', disk, 'rate=1G'];
    let name = '';
    await withServer(folder, 'nbdkit', slow, async (uri, server) => {
      name = uri;
      const { ended } = restores.start('--json', ...words(uri));
      const record = (): string | undefined =>
        existsSync(`${folder}/state`)
          ? readdirSync(`${folder}/state`).find((each) => each.endsWith('.mim-restore'))
          : undefined;
      while (record() === undefined) await pause(5);
      assert.ok(await until(`${folder}/state/${record()}`, 1, ended), 'it dies in the middle');
      server.kill('SIGKILL');
      const { status, stderr } = await ended;
      assert.equal(status, 1);
      assert.match(stderr, /has hung up|can not be talked to|is closed/);
      const told = await restores.run('db', '--status', '--to', uri);
      assert.match(told.stdout, /is incomplete: a restore of db as of write \d+, .* goes on/);
    });
    await withServer(
      folder,
      'nbdkit',
      (socket) => ['-f', '-U', socket, 'file', disk],
      async (uri) => {
        assert.equal(uri, name);
        const again = await restores.lines('db', '--to', uri);
        assert.equal(again.plan!.how, 'resumed');
      },
    );
    assertHolds(disk, bytes);
  }));

test('onto a block device; not while a file system on it is mounted, nor onto the file behind it', () =>
  withAppliance({}, async (appliance, folder) => {
    const bytes = await scattered(appliance, SIZE, 80);
    const restores = new Restores(appliance, folder);
    const [disk, mounted] = [`${folder}/disk.img`, `${folder}/mounted`];
    mkdirSync(mounted);
    writeFileSync(disk, '');
    truncateSync(disk, SIZE);
    const device = (await succeed('losetup', ['--find', '--show', disk])).trim();
    const words = ['db', '--at', 'latest', '--to', device, '--yes'];
    try {
      await succeed('mkfs.ext4', ['-q', device]);
      await succeed('mount', [device, mounted]);
      try {
        await restores.fails(1, /is in use: a file system.*\n.*unmount/, ...words);
      } finally {
        await succeed('umount', [mounted]);
      }
      await restores.fails(1, /in use: it is the loop device \/dev\/loop/, ...words.with(4, disk));
      const done = await restores.lines(...words);
      assert.equal(done.plan!.how, 'compared');
      assert.ok(done.done!.fromStorage);
      assertHolds(device, bytes);
    } finally {
      await succeed('losetup', ['--detach', device]);
    }
    assertHolds(disk, bytes);
    const readOnly = (await succeed('losetup', ['--find', '--show', '--read-only', disk])).trim();
    try {
      await restores.fails(2, /can't be written/, ...words.with(4, readOnly));
    } finally {
      await succeed('losetup', ['--detach', readOnly]);
    }
  }));

test('a disk that fills up: the file is incomplete, says so, and goes on when there is space', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: 128 * MIB });
    const guest = await Guest.connect(appliance.uri('db'));
    for (let at = 0; at < 128 * MIB; at += 8 * MIB) await guest.write(at, 8 * MIB);
    const bytes = await guest.close();
    const restores = new Restores(appliance, folder);
    const small = `${folder}/small`;
    mkdirSync(small);
    await succeed('mount', ['-t', 'tmpfs', '-o', 'size=100m', 'tmpfs', small]);
    try {
      const file = `${small}/db.img`;
      const words = ['db', '--at', 'latest', '--to', file];
      await restores.fails(1, /no space left for .*db\.img\n.*goes on/, ...words);
      assert.match((await restores.run('db', '--status', '--to', file)).stdout, /is incomplete/);
      await restores.fails(1, /no space left/, ...words);
      await succeed('mount', ['-o', 'remount,size=200m', small]);
      const done = await restores.lines(...words);
      assert.equal(done.plan!.how, 'resumed');
      assert.ok(!done.done!.fromStorage, 'a file system in memory');
      assertHolds(file, bytes);
      assert.ok(!existsSync(`${file}.mim-restore`));
    } finally {
      await run('umount', [small]);
    }
  }));
