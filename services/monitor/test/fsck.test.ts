// Real file systems and their real checkers: sound ones, ones in mid-write that their journal makes whole, damaged ones,
// disks with a partition table, and all that can't be told.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { noIsolation } from '../runner/isolation.ts';
import { overlaps } from '../core/read-set.ts';
import type { ProbeResult } from '../kinds/probe.ts';
import { readyCheck } from '../kinds/all-kinds.ts';
import { openDoorway } from '../runner/doorway.ts';
import { runCheck } from '../runner/run-check.ts';
import { moment, probing } from './moment.ts';
import { asGuest, imageOf, MemoryDisk, RecordedDisk, runs, serving } from './recorded-disk.ts';
import { withFolder } from './shell-check.ts';

const MIB = 2 ** 20;
const FORMATS = {
  ext4: { mkfs: ['mkfs.ext4', '-q', '-b', '1024'], sizeBytes: 24 * MIB },
  xfs: { mkfs: ['mkfs.xfs', '-q'], sizeBytes: 320 * MIB },
  btrfs: { mkfs: ['mkfs.btrfs', '-q'], sizeBytes: 112 * MIB },
  vfat: { mkfs: ['mkfs.vfat', '-F', '32'], sizeBytes: 40 * MIB },
} as const;

function checkDisk(
  folder: string,
  bytes: Buffer,
  {
    settings = {},
    writable = true,
    isolation,
  }: { settings?: object; writable?: boolean; isolation?: typeof noIsolation } = {},
): Promise<ProbeResult> {
  return serving(folder, new MemoryDisk(bytes), (uri) =>
    probing('fsck', settings, { mirror: { uri, writable } }, folder, isolation),
  );
}

function formatted(folder: string, type: keyof typeof FORMATS): Buffer {
  const path = `${folder}/${type}.img`;
  imageOf(path, FORMATS[type].sizeBytes, FORMATS[type].mkfs);
  return readFileSync(path);
}

/** Spoils all that is not zero in the first megabyte, but for the superblock. */
function spoiled(bytes: Buffer, type: keyof typeof FORMATS): Buffer {
  const copy = Buffer.from(bytes);
  if (type === 'vfat') {
    // The second FAT no longer says what the first does, and both name clusters that there are not.
    const fat = copy.readUInt16LE(14) * copy.readUInt16LE(11);
    randomBytes(2048).copy(copy, fat + 512);
    return copy;
  }
  // btrfs: one tree block wherever it is, both its copies. Others: inodes and what leads to them.
  const [from, to] = type === 'btrfs' ? [MIB, copy.length] : [type === 'xfs' ? 2 * 4096 : 16_384, MIB];
  for (let at = from; at < to; at += 512) {
    const sector = copy.subarray(at, at + 512);
    const superblock = type === 'btrfs' && copy.toString('latin1', at + 64, at + 72) === '_BHRfS_M';
    if (!superblock && sector.some((byte) => byte !== 0))
      for (let i = 100; i < 200; i += 1) sector[i]! ^= 0x5a;
  }
  return copy;
}

for (const type of Object.keys(FORMATS) as (keyof typeof FORMATS)[])
  test(`${type}: a sound one is good, a damaged one bad`, () =>
    withFolder(async (folder) => {
      const sound = formatted(folder, type);
      const good = await checkDisk(folder, Buffer.from(sound));
      assert.equal(good.verdict, 'good', good.output);
      assert.match(good.output, new RegExp(`the whole disk, ${type}.*: good`));
      assert.deepEqual(good.left, []);
      const bad = await checkDisk(folder, spoiled(sound, type));
      assert.equal(bad.verdict, 'bad', `${bad.reason}: ${bad.output}`);
      assert.match(bad.output, new RegExp(`the whole disk, ${type}.*: bad`));
    }));

const GUEST = `
import os, sys
os.chdir(sys.argv[1])
for i in range(40): open(f'file{i}', 'wb').write(os.urandom(1000 + i * 100))
os.sync()
for i in range(0, 40, 2): os.unlink(f'file{i}')
last = open('last', 'w'); last.write('x'); last.flush(); os.fsync(last.fileno())
`;

/** Written by a guest that is still at it: its journal is behind. */
async function inMidWrite(folder: string, type: 'ext4' | 'xfs'): Promise<Buffer> {
  const { sizeBytes, mkfs } = FORMATS[type];
  const disk = new RecordedDisk(sizeBytes);
  let seq = 0;
  await asGuest(folder, disk.live, { mkfs }, async (files) => {
    // In a process of its own: this one serves the disk, and must not wait for it.
    await runs('python3', ['-c', GUEST, files]);
    seq = disk.writes.length;
  });
  return disk.at(seq);
}

for (const type of ['ext4', 'xfs'] as const)
  test(`${type} in mid-write: good on a clone, after its journal's replay; on a mirror it can't tell`, () =>
    withFolder(async (folder) => {
      const bytes = await inMidWrite(folder, type);
      const before = Buffer.from(bytes);
      const mirror = await checkDisk(folder, bytes, { writable: false });
      assert.equal(mirror.verdict, 'cannot-tell', mirror.output);
      assert.match(mirror.output, /is to be replayed, and this is no clone/);
      assert.ok(bytes.equals(before), 'a mirror is not written to');
      const clone = await checkDisk(folder, bytes);
      assert.equal(clone.verdict, 'good', clone.output);
      assert.equal(bytes.equals(before), false);
      assert.equal(
        (await checkDisk(folder, Buffer.from(before), { isolation: noIsolation })).verdict,
        'good',
      );
    }));

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
    execFileSync('mkswap', [`${folder}/swap`].concat(writeSwap(`${folder}/swap`)), { stdio: 'ignore' });
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

function writeSwap(path: string): string[] {
  writeFileSync(path, Buffer.alloc(4 * MIB));
  return [];
}

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
          door = await openDoorway({ uri, folder: scratch, writable: true });
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
