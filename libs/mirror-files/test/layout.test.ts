// What is on a disk, against the tools that made it (sfdisk) and the tool that everybody asks (blkid).
import assert from 'node:assert/strict';
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { chooseFileSystem, type Layout, readLayout } from '../layout/layout.ts';
import { type Kind, makeImage, place, tool, unmount, withFolder } from './images.ts';

async function layoutOf(image: string): Promise<Layout> {
  const { size } = statSync(image);
  const file = openSync(image, 'r');
  try {
    return await readLayout(async (startBytes, lengthBytes) => {
      assert.ok(
        startBytes >= 0 && startBytes + lengthBytes <= size,
        `${startBytes}+${lengthBytes} is on the disk`,
      );
      const bytes = Buffer.alloc(lengthBytes);
      readSync(file, bytes, 0, lengthBytes, startBytes);
      return bytes;
    }, size);
  } finally {
    closeSync(file);
  }
}

function partition(image: string, sizeMiB: number, script: string): void {
  writeFileSync(image, '');
  truncateSync(image, sizeMiB << 20);
  execFileSync('sfdisk', ['-q', image], {
    input: script,
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
  });
}

function overwrite(image: string, at: number, bytes: Buffer): void {
  const file = openSync(image, 'r+');
  writeSync(file, bytes, 0, bytes.length, at);
  closeSync(file);
}

interface Shown {
  partitiontable: {
    label: string;
    sectorsize: number;
    partitions: { node: string; start: number; size: number; name?: string }[];
  };
}

/** As sfdisk sees it. */
function sfdiskParts(image: string): { number: number; startBytes: number; sizeBytes: number }[] {
  const { partitiontable } = JSON.parse(tool('sfdisk', '--json', image)) as Shown;
  return partitiontable.partitions.map(({ node, start, size }) => ({
    number: Number(/(\d+)$/.exec(node)![1]),
    startBytes: start * 512,
    sizeBytes: size * 512,
  }));
}

const placesOf = ({ fileSystems, others }: Layout) =>
  [...fileSystems, ...others]
    .filter(({ number }) => number > 0)
    .map(({ number, startBytes, sizeBytes }) => ({ number, startBytes, sizeBytes }))
    .sort((a, b) => a.number - b.number);

test('file systems are told as blkid tells them', () =>
  withFolder(async (folder) => {
    for (const kind of ['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'vfat', 'ntfs'] as Kind[]) {
      const image = makeImage(folder, kind);
      const { fileSystems, table } = await layoutOf(image);
      const asked = tool('blkid', '-p', '-o', 'export', image);
      const told = new Map(asked.split('\n').map((line) => line.split('=', 2) as [string, string]));
      assert.equal(table, 'none');
      assert.equal(fileSystems.length, 1, kind);
      const found = fileSystems[0]!;
      assert.equal(found.kind, told.get('TYPE'));
      assert.equal(found.uuid, told.get('UUID'));
      assert.equal(found.label, told.get('LABEL'));
      assert.equal(found.unclean, false, kind);
    }
    writeFileSync(`${folder}/swap`, '');
    truncateSync(`${folder}/swap`, 16 << 20);
    tool('mkswap', '-q', '-L', 'SWAP', `${folder}/swap`);
    assert.deepEqual(
      (await layoutOf(`${folder}/swap`)).others.map(({ kind, label }) => [kind, label]),
      [['swap', 'SWAP']],
    );
  }));

test('a file system that is in use is told from one that was unmounted', () =>
  withFolder(async (folder) => {
    const point = `${folder}/point`;
    mkdirSync(point);
    for (const kind of ['ext4', 'xfs', 'btrfs'] as const) {
      const image = makeImage(folder, kind);
      for (let round = 0; round < 4; round += 1) {
        tool('mount', '-t', kind, '-o', 'loop', image, point);
        try {
          for (let i = 0; i < 300; i += 1) writeFileSync(`${point}/etc/file${round}-${i}`, 'x'.repeat(i));
          tool('sync', '-f', point);
          for (let i = 0; i < 300; i += 2) rmSync(`${point}/etc/file${round}-${i}`);
          const file = openSync(`${point}/etc/last`, 'w');
          fsyncSync(file);
          closeSync(file);
          tool('sync', image);
          // Of btrfs only a log tree tells, which an fsync makes and a commit takes away.
          assert.equal(
            (await layoutOf(image)).fileSystems[0]!.unclean,
            true,
            `${kind} in use, round ${round}`,
          );
        } finally {
          unmount(point, image);
        }
        tool('sync', image);
        assert.equal(
          (await layoutOf(image)).fileSystems[0]!.unclean,
          false,
          `${kind} unmounted, round ${round}`,
        );
      }
    }
  }));

test('the log of an xfs is read as xfs_logprint reads it, while it goes round', { timeout: 60_000 }, () =>
  withFolder(async (folder) => {
    const image = `${folder}/xfs.img`;
    const point = `${folder}/point`;
    mkdirSync(point);
    writeFileSync(image, '');
    truncateSync(image, 32 << 20);
    // As the tests of xfs itself make one that is smaller than it should be.
    const env = { ...process.env, TEST_DIR: '1', TEST_DEV: '1', QA_CHECK_FS: '1' };
    execFileSync('/sbin/mkfs.xfs', ['-q', image], { env });
    const heads: number[] = [];
    const states = new Set<string>();
    const compare = async (): Promise<void> => {
      tool('sync', image);
      const [, head, state] = /head: (\d+) state: <(\w+)>/.exec(tool('xfs_logprint', '-t', image))!;
      const { unclean } = (await layoutOf(image)).fileSystems[0]!;
      assert.equal(unclean, state === 'DIRTY', `${state}, round ${heads.length}`);
      heads.push(Number(head));
      states.add(state!);
    };
    for (let round = 0; round < 42; round += 1) {
      tool('mount', '-t', 'xfs', '-o', 'loop', image, point);
      try {
        for (let i = 0; i < 350; i += 1) writeFileSync(`${point}/file${i}`, 'x');
        tool('sync', '-f', point);
        if (round % 3 === 0) await compare();
        for (let i = 0; i < 350; i += 1) rmSync(`${point}/file${i}`);
        tool('sync', '-f', point);
      } finally {
        unmount(point, image);
      }
      await compare();
    }
    assert.deepEqual([...states].sort(), ['CLEAN', 'DIRTY']);
    assert.ok(
      heads.filter((head, i) => i > 0 && head < heads[i - 1]!).length >= 1,
      `it went round: ${heads}`,
    );
  }),
);

test('GPT: partitions with their names and file systems; by the copy when the first is damaged', () =>
  withFolder(async (folder) => {
    const disk = `${folder}/disk`;
    partition(disk, 400, 'label: gpt\nsize=64MiB, name="boot"\nsize=100MiB\nsize=8MiB, name="leer"\n');
    const parts = sfdiskParts(disk);
    place(makeImage(folder, 'vfat'), disk, parts[0]!.startBytes);
    place(makeImage(folder, 'ext4', 'root'), disk, parts[1]!.startBytes);
    const check = async (notes: RegExp[]): Promise<void> => {
      const layout = await layoutOf(disk);
      assert.equal(layout.table, 'gpt');
      assert.deepEqual(placesOf(layout), parts);
      assert.deepEqual(
        layout.fileSystems.map(({ number, kind, label }) => [number, kind, label]),
        [
          [1, 'vfat', 'SAMPLE'],
          [2, 'ext4', 'root'],
        ],
      );
      assert.deepEqual(
        layout.others.map(({ number, kind, label }) => [number, kind, label]),
        [[3, 'unknown', 'leer']],
      );
      assert.equal(layout.notes.length, notes.length);
      for (const [i, note] of notes.entries()) assert.match(layout.notes[i]!, note);
      assert.throws(
        () => chooseFileSystem(layout),
        (error: Error & { hint: string }) => {
          assert.match(error.message, /several/);
          assert.match(
            error.hint,
            /partition 1: vfat, 64 MiB, "SAMPLE"\n {2}partition 2: ext4, 100 MiB, "root"/,
          );
          return true;
        },
      );
      assert.equal(chooseFileSystem(layout, 2).label, 'root');
      assert.throws(() => chooseFileSystem(layout, 3), /partition 3 .* nothing that is known/);
      assert.throws(() => chooseFileSystem(layout, 9), /no such partition/);
    };
    await check([]);
    overwrite(disk, 1024 + 60, Buffer.from([0xff]));
    await check([/copy at its end is used/]);
    const { length } = readFileSync(disk);
    overwrite(disk, length - 512 + 30, Buffer.from([0xff]));
    const lost = await layoutOf(disk);
    assert.deepEqual([lost.table, lost.fileSystems], ['none', []]);
    assert.throws(() => chooseFileSystem(lost), /partition table \(GPT\) is damaged/);
  }));

test('MBR: primary and logical partitions, as sfdisk numbers them', () =>
  withFolder(async (folder) => {
    const disk = `${folder}/disk`;
    const sizes = ['60MiB, type=83', '250MiB, type=5', '20MiB, type=83', '20MiB, type=82'];
    partition(
      disk,
      400,
      ['label: dos', ...[...sizes, '60MiB', '70MiB', '20MiB'].map((size) => `size=${size}`), ''].join('\n'),
    );
    const shown = sfdiskParts(disk).filter(({ number }) => number !== 2);
    place(makeImage(folder, 'ext3', 'first'), disk, shown[0]!.startBytes);
    const logical = shown.find(({ number }) => number === 5)!;
    place(makeImage(folder, 'ext2', 'fifth'), disk, logical.startBytes);
    const layout = await layoutOf(disk);
    assert.equal(layout.table, 'mbr');
    assert.deepEqual(placesOf(layout), shown);
    assert.ok(shown.some(({ number }) => number === 7));
    assert.deepEqual(
      layout.fileSystems.map(({ number, kind, label }) => [number, kind, label]),
      [
        [1, 'ext3', 'first'],
        [5, 'ext2', 'fifth'],
      ],
    );
    // The chain goes round.
    const extended = JSON.parse(tool('sfdisk', '--json', disk)) as Shown;
    const start = extended.partitiontable.partitions.find(({ node }) => node.endsWith('2'))!.start * 512;
    const ebr = Buffer.from(readFileSync(disk).subarray(start, start + 512));
    ebr.writeUInt32LE(0, 446 + 16 + 8);
    overwrite(disk, start, ebr);
    assert.match((await layoutOf(disk)).notes.join(), /does not end/);
  }));

test('a file system without a table is not taken for one, and an older one below a table is told', () =>
  withFolder(async (folder) => {
    const fat = await layoutOf(makeImage(folder, 'vfat'));
    assert.deepEqual([fat.table, fat.fileSystems.length], ['none', 1]);
    const disk = makeImage(folder, 'ext4');
    execFileSync('sfdisk', ['-q', '--wipe', 'never', '--force', disk], {
      input: 'label: dos\nstart=30MiB, size=10MiB\n',
      env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
    });
    const both = await layoutOf(disk);
    assert.deepEqual([both.table, both.fileSystems.map(({ number }) => number)], ['mbr', [0]]);
  }));

test('whatever the bytes, an answer comes, from the disk alone', async () => {
  const sizes = [0, 1, 511, 512, 2048, 4096, 70_000, 1 << 20];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...sizes),
      fc.array(fc.tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 600 })), { maxLength: 12 }),
      fc.constantFrom('', 'mbr', 'gpt', 'ntfs'),
      async (size, writes, seed) => {
        const disk = Buffer.alloc(size);
        for (const [at, bytes] of writes)
          if (size > 0) disk.set(bytes.subarray(0, size - (at % size)), at % size);
        if (size > 2048 && seed !== '') disk.writeUInt16LE(0xaa55, 510);
        if (size > 2048 && seed === 'ntfs') disk.write('NTFS    ', 3);
        if (size > 2048 && seed === 'gpt') disk.write('EFI PART', 512);
        await readLayout(async (startBytes, lengthBytes) => {
          assert.ok(startBytes >= 0 && lengthBytes >= 0 && startBytes + lengthBytes <= size);
          return Buffer.from(disk.subarray(startBytes, startBytes + lengthBytes));
        }, size);
      },
    ),
    { numRuns: 2000 },
  );
});
