// fsck on whole disks: partition tables, images of this machine, nothing that is known, a device that fails, no FUSE.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { ReadPace } from '@midmirror/nbd';
import { overlaps } from '../core/read-set.ts';
import { readyCheck } from '../kinds/all-kinds.ts';
import { openDoorway } from '../runner/doorway.ts';
import { noIsolation } from '../runner/isolation.ts';
import { runCheck } from '../runner/run-check.ts';
import { checkDisk, formatted, MIB, spoiled } from './formats.ts';
import { moment, probing } from './moment.ts';
import { MemoryDisk, serving } from './recorded-disk.ts';
import { withFolder } from './shell-check.ts';

test('a partition table: each file system in it, others are passed over, one can be chosen', () =>
  withFolder(async (folder) => {
    const disk = Buffer.alloc(96 * MIB);
    const path = `${folder}/disk.img`;
    writeFileSync(path, disk);
    execFileSync('sfdisk', ['--quiet', path], {
      input:
        'label: gpt\nstart=2048, size=81920\nstart=83968, size=49152\nstart=133120, size=8192, type=swap\n',
    });
    const whole = readFileSync(path);
    const ext4 = formatted(folder, 'ext4');
    formatted(folder, 'vfat').copy(whole, MIB);
    spoiled(ext4, 'ext4').copy(whole, 41 * MIB);
    writeFileSync(`${folder}/swap`, Buffer.alloc(4 * MIB));
    execFileSync('mkswap', [`${folder}/swap`], { stdio: 'ignore' });
    readFileSync(`${folder}/swap`).copy(whole, 65 * MIB);
    const all = await checkDisk(folder, Buffer.from(whole));
    assert.equal(all.verdict, 'bad', all.output);
    assert.match(
      all.output,
      /partition 1, vfat.*: good[\s\S]*partition 2, ext4: bad[\s\S]*partition 3, swap: passed over/,
    );
    const one = await checkDisk(folder, Buffer.from(whole), { settings: { partition: 1 } });
    assert.deepEqual([one.verdict, /partition 2/.test(one.output)], ['good', false]);
    assert.equal(
      overlaps(one.read!, [{ startBytes: 42 * MIB, lengthBytes: MIB }]),
      false,
      'it reads its own',
    );
    assert.equal((await checkDisk(folder, whole, { settings: { partition: 3 } })).verdict, 'cannot-tell');
  }));

test('nothing that is known can not be told, or is bad where something must be', () =>
  withFolder(async (folder) => {
    const empty = await checkDisk(folder, Buffer.alloc(MIB));
    assert.deepEqual([empty.verdict, empty.reason], ['cannot-tell', 'the check says that it can not tell']);
    assert.match(empty.output, /no file system that can be checked was found/);
    const gone = await checkDisk(folder, Buffer.alloc(MIB), { settings: { fileSystemsMin: 1 } });
    assert.equal(gone.verdict, 'bad');
  }));

test('a disk image of this machine: in place, and its partitions as copies', () =>
  withFolder(async (folder) => {
    const ext4 = formatted(folder, 'ext4');
    const file = { path: `${folder}/ext4.img`, writable: true };
    assert.equal((await probing('fsck', {}, { file }, folder)).verdict, 'good');
    const path = `${folder}/disk.img`;
    writeFileSync(path, Buffer.alloc(32 * MIB));
    execFileSync('sfdisk', ['--quiet', path], { input: 'label: dos\nstart=2048, type=83\n' });
    const disk = readFileSync(path);
    spoiled(ext4, 'ext4').copy(disk, MIB);
    writeFileSync(path, disk);
    const bad = await probing('fsck', {}, { file: { path, writable: false } }, folder);
    assert.match(bad.output, /partition 1, ext4: bad/);
  }));

test('a mirror that can not be read is not condemned', () =>
  withFolder(async (folder) => {
    const device = new MemoryDisk(formatted(folder, 'ext4'));
    let reads = 0;
    device.tryRead = () => false;
    device.read = async (start, length, target, offset) => {
      reads += 1;
      if (reads > 20) throw new Error('the pool is away');
      target.set(device.bytes.subarray(start, start + length), offset);
    };
    const { verdict, reason } = await serving(folder, device, (uri) =>
      probing('fsck', {}, { mirror: { uri, writable: true } }, folder),
    );
    assert.equal(verdict, 'cannot-tell');
    assert.match(reason, /what it was to check could not be read/);
  }));

test('without FUSE the disk is copied, and the answer is the same', () =>
  withFolder(async (folder) => {
    mkdirSync(`${folder}/bin`);
    writeFileSync(`${folder}/bin/nbdfuse`, '#!/bin/sh\necho no /dev/fuse here >&2; exit 1\n', {
      mode: 0o755,
    });
    const bytes = formatted(folder, 'ext4');
    let door: Awaited<ReturnType<typeof openDoorway>> | undefined;
    const result = await serving(folder, new MemoryDisk(bytes), async (uri) => {
      const { kind, settings } = readyCheck('fsck', {});
      return await runCheck(
        async ({ scratch }) => {
          door = await openDoorway({ uri, folder: scratch, writable: true, pace: new ReadPace() });
          const plan = kind.plan(settings, { moment, mirror: { uri: door.uri, writable: true }, scratch });
          return {
            ...plan,
            environment: { ...plan.environment, PATH: `${folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin` },
          };
        },
        { stateDirectory: `${folder}/state`, isolation: noIsolation },
      );
    });
    await door?.close();
    assert.equal(result.verdict, 'good', `${result.reason} ${result.output}`);
    assert.match(result.output, /not through FUSE \(no \/dev\/fuse here\): copied/);
  }));
