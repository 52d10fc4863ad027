// Disks of all sorts: partitions, journals to replay, other file systems, none at all.
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import {
  BLOCK_BYTES,
  certify,
  clonesOf,
  ext4Image,
  inodePlace,
  leftOf,
  program,
  volumeOf,
} from './checked-volume.ts';

const MIB = 1 << 20;
const PART_MIB = 16;

/** A GPT with the images in its partitions. */
async function partitioned(folder: string, name: string, images: readonly string[]): Promise<string> {
  const disk = `${folder}/${name}.img`;
  writeFileSync(disk, '');
  truncateSync(disk, (PART_MIB * images.length + 2) * MIB);
  const starts = images.map((_, i) => 1 + PART_MIB * i);
  const lines = starts.map((mib) => `start=${mib * 2048},size=${PART_MIB * 2048}`);
  await succeed('sfdisk', ['--quiet', disk], { input: `label: gpt\n${lines.join('\n')}\n` });
  const file = openSync(disk, 'r+');
  images.forEach((image, i) => {
    const bytes = readFileSync(image);
    writeSync(file, bytes, 0, bytes.length, starts[i]! * MIB);
  });
  closeSync(file);
  return disk;
}

test('fsck and files of a partitioned disk; fsck of an empty one', () =>
  withAppliance({}, async (appliance, folder) => {
    const ext4 = await ext4Image(folder, 16 * MIB, (source) => writeFileSync(`${source}/a`, 'in ext4'));
    const vfat = `${folder}/vfat.img`;
    writeFileSync(vfat, '');
    truncateSync(vfat, 16 * MIB);
    await succeed('mkfs.vfat', [vfat]);
    await volumeOf(appliance, 'db', await partitioned(folder, 'db', [ext4, vfat]));
    await volumeOf(appliance, 'two', await partitioned(folder, 'two', [ext4, ext4]));
    const add = async (...args: string[]): Promise<void> => {
      const added = await appliance.mim('check', 'add', ...args);
      assert.equal(added.status, 0, added.stderr);
    };
    await add('db', 'fsck', '--name', 'all');
    await add('db', 'fsck', '--name', 'second', '--set', 'partition=2');
    await add('db', 'fsck', '--name', 'three', '--set', 'fileSystemsMin=3');
    const look = program(folder, 'look', 'cd "$MIM_MIRROR_FILES" && grep -H . */a');
    for (const volume of ['db', 'two'])
      await add(volume, 'command', '--name', 'files', '--program', look, '--as', 'files');
    const all = await certify(appliance, 'db', 'all');
    assert.equal(all.verdict, 'good', JSON.stringify(all));
    assert.match(all.output, /partition 1, ext4: good/);
    assert.match(all.output, /partition 2, vfat: good/);
    const second = await certify(appliance, 'db', 'second');
    assert.equal(second.verdict, 'good');
    assert.doesNotMatch(second.output, /ext4/);
    const three = await certify(appliance, 'db', 'three');
    assert.equal(three.verdict, 'bad', 'one is missing');
    const files = await certify(appliance, 'two', 'files');
    assert.equal(files.verdict, 'good', JSON.stringify(files));
    assert.equal(files.output, 'files-1/a:in ext4\nfiles-2/a:in ext4\n');

    // Damage in the one is none of the other.
    const client = await connectNbd(appliance.uri('db'));
    // The first inodes: the root's.
    const { blockStart } = await inodePlace(ext4, 2);
    await client.write(MIB + blockStart, Buffer.alloc(BLOCK_BYTES, 0xff));
    const damaged = await certify(appliance, 'db', 'all');
    assert.equal(damaged.verdict, 'bad', JSON.stringify(damaged));
    assert.match(damaged.output, /partition 1, ext4: bad[\s\S]*partition 2, vfat: good/);
    const spared = await certify(appliance, 'db', 'second');
    assert.deepEqual([spared.verdict, spared.reusedFrom], ['good', second.seq]);

    // No table and no file system any more: nothing can be told, of the disk and of its files.
    for (let at = 0; at < (2 * PART_MIB + 2) * MIB; at += MIB) await client.zeroes(at, MIB);
    await client.close();
    const nothing = await certify(appliance, 'db', 'all');
    assert.equal(nothing.verdict, 'cannot-tell');
    assert.match(nothing.output, /no file system that can be checked was found/);
    const noFiles = await certify(appliance, 'db', 'files');
    assert.equal(noFiles.verdict, 'cannot-tell');
    assert.match(noFiles.reason, /there is no file system/);
    const stillThree = await certify(appliance, 'db', 'three');
    assert.equal(stillThree.verdict, 'bad');
    assert.deepEqual(leftOf(`${folder}/data`), []);
    assert.deepEqual(await clonesOf(appliance), []);
  }));
