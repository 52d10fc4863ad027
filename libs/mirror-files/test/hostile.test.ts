// Disks of somebody who means harm, and disks that are broken.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { test } from 'node:test';
import { type MirrorFiles, openMirror, type OpenOptions, thisMachine } from '../index.ts';
import { listAll, readAll } from './contract.ts';
import { makeImage, place, tool, unmount, withFolder, withServed } from './images.ts';

const WAYS = ['nbdfuse', 'debugfs'] as const;

async function withMirror(
  folder: string,
  image: string,
  options: Partial<OpenOptions>,
  act: (mirror: MirrorFiles) => Promise<void>,
): Promise<void> {
  const stateDirectory = `${folder}/state`;
  await withServed(
    folder,
    image,
    async (uri) => {
      const mirror = await openMirror(uri, { stateDirectory, ...options });
      try {
        await act(mirror);
      } finally {
        await mirror.close();
      }
      assert.deepEqual(readdirSync(stateDirectory), []);
    },
    { writable: options.replay === true || options.write === true },
  );
}

function smallExt4(folder: string, fill: (source: string) => void): string {
  const source = `${folder}/small.source`;
  const image = `${folder}/small.img`;
  mkdirSync(source);
  fill(source);
  writeFileSync(image, '');
  truncateSync(image, 16 << 20);
  tool('mkfs.ext4', '-q', '-d', source, image);
  return image;
}

const debugfs = (image: string, command: string): string => tool('debugfs', '-w', '-R', command, image);
const inodeOf = (image: string, path: string): string =>
  /Inode: (\d+)/.exec(tool('debugfs', '-R', `stat ${path}`, image))![1]!;

/** Overwrites bytes of the inode itself, so that its checksum is wrong. */
function breakInode(image: string, path: string): void {
  const [, block, offset] = /located at block (\d+), offset 0x([0-9a-f]+)/.exec(
    tool('debugfs', '-R', `imap ${path}`, image),
  )!;
  const blockBytes = Number(/Block size:\s+(\d+)/.exec(tool('dumpe2fs', '-h', image))![1]);
  writeFileSync(`${image}.piece`, Buffer.alloc(100, 0xee));
  place(`${image}.piece`, image, Number(block) * blockBytes + Number.parseInt(offset!, 16));
}

for (const way of WAYS)
  test(`a link and a folder of one name: nothing is written through the link (${way})`, () =>
    withFolder(async (folder) => {
      const outside = `${folder}/outside`;
      mkdirSync(outside);
      const image = smallExt4(folder, (source) => {
        mkdirSync(`${source}/d/real`, { recursive: true });
        writeFileSync(`${source}/d/real/planted`, 'x');
        execFileSync('ln', ['-s', outside, `${source}/d/a`]);
      });
      debugfs(image, `ln <${inodeOf(image, '/d/real')}> /d/a`);
      debugfs(image, `ln <${inodeOf(image, '/d/real/planted')}> /d/a/planted`);
      await withMirror(folder, image, { ways: [way] }, async (mirror) => {
        const tree = await mirror.tree();
        const copied = await tree.copy('/d', `${folder}/copy`, { owners: false });
        assert.deepEqual(readdirSync(outside), []);
        assert.ok(copied.files >= 1);
        assert.equal(readFileSync(`${folder}/copy/real/planted`, 'utf8'), 'x');
      });
    }));

test('a folder that is in itself ends somewhere', () =>
  withFolder(async (folder) => {
    const image = smallExt4(folder, (source) => {
      mkdirSync(`${source}/d`);
      writeFileSync(`${source}/d/f`, 'x');
    });
    debugfs(image, `ln <${inodeOf(image, '/d')}> /d/loop`);
    for (const way of WAYS)
      await withMirror(folder, image, { ways: [way] }, async (mirror) => {
        const tree = await mirror.tree();
        const copied = await tree.copy('/d', `${folder}/copy-${way}`, { owners: false });
        assert.ok(copied.failed >= 1 && copied.directories <= 256, JSON.stringify(copied));
        assert.equal(readFileSync(`${folder}/copy-${way}/f`, 'utf8'), 'x');
      });
  }));

for (const way of WAYS)
  test(`one damaged file: it is named, the rest is copied (${way})`, () =>
    withFolder(async (folder) => {
      const image = smallExt4(folder, (source) => {
        mkdirSync(`${source}/d`);
        for (const name of ['a', 'bad', 'c']) writeFileSync(`${source}/d/${name}`, name);
      });
      breakInode(image, '/d/bad');
      await withMirror(folder, image, { ways: [way] }, async (mirror) => {
        const tree = await mirror.tree();
        const copied = await tree.copy('/', `${folder}/copy`, { owners: false });
        assert.ok(copied.failed >= 1);
        assert.match(copied.reasons[0]!.path, /^\/d/);
        assert.equal(readFileSync(`${folder}/copy/d/a`, 'utf8'), 'a');
        assert.equal(readFileSync(`${folder}/copy/d/c`, 'utf8'), 'c');
        assert.ok(!existsSync(`${folder}/copy/d/bad`));
        await assert.rejects(readAll(tree, '/d/bad'), { code: 'corrupt' });
        assert.equal((await readAll(tree, '/d/c')).toString(), 'c');
      });
    }));

test('a damaged superblock: what was tried is told, and what is gone is not there', () =>
  withFolder(async (folder) => {
    const image = smallExt4(folder, (source) => writeFileSync(`${source}/f`, 'x'));
    writeFileSync(`${folder}/garbage`, Buffer.alloc(0x38, 0xa5));
    // All before its magic: sizes, counts.
    place(`${folder}/garbage`, image, 1024);
    await withMirror(folder, image, {}, async (mirror) => {
      assert.equal(mirror.fileSystems[0]!.kind, 'ext4');
      await assert.rejects(mirror.tree(), (error: Error & { code: string; hint: string }) => {
        assert.equal(error.code, 'corrupt');
        assert.match(error.message, /ext4 can't be reached: it is damaged/);
        for (const way of ['kernel-nbd', 'nbdfuse', 'debugfs', '7z'])
          assert.match(error.hint, new RegExp(`\n {2}${way}: \\S`));
        return true;
      });
      // Once more: what failed is tried anew, and leaves nothing.
      await assert.rejects(mirror.tree(), { code: 'corrupt' });
    });
    writeFileSync(`${folder}/garbage`, Buffer.alloc(1024));
    place(`${folder}/garbage`, image, 1024);
    await withMirror(folder, image, {}, async (mirror) => {
      assert.deepEqual(mirror.fileSystems, []);
      await assert.rejects(mirror.tree(), { code: 'not-found', message: /no file system is found/ });
    });
  }));

test(
  'random damage: every answer is an answer or an error of ours, and all is undone',
  { timeout: 50_000 },
  () =>
    withFolder(async (folder) => {
      const image = smallExt4(folder, (source) => {
        for (let i = 0; i < 30; i += 1) {
          mkdirSync(`${source}/d${i}`);
          writeFileSync(`${source}/d${i}/f`, Buffer.alloc(2000, i));
        }
      });
      const whole = readFileSync(image);
      let seed = 7;
      const next = (bound: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % bound;
      for (let round = 0; round < 8; round += 1) {
        const bytes = Buffer.from(whole);
        for (let i = 0; i < 40; i += 1)
          bytes.fill(next(256), 2048 + next(600_000), 2048 + next(600_000) + 64);
        writeFileSync(image, bytes);
        await withMirror(folder, image, { ways: [WAYS[round % 2]!] }, async (mirror) => {
          const tree = await mirror.tree().catch((error: Error) => error);
          if (tree instanceof Error) return assert.equal(tree.name, 'MidmirrorError');
          await tree
            .copy('/', `${folder}/copy-${round}`, { owners: false })
            .catch((error: Error) => assert.equal(error.name, 'MidmirrorError', String(error)));
        });
      }
    }),
);

test('a superblock that asks for a panic is not listened to', () =>
  withFolder(async (folder) => {
    const image = smallExt4(folder, (source) => writeFileSync(`${source}/f`, 'x'));
    tool('tune2fs', '-e', 'panic', image);
    await withMirror(folder, image, { ways: ['nbdfuse'] }, async (mirror) => {
      const { directory } = await mirror.tree();
      const line = readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .find((each) => each.includes(` ${directory} `))!;
      assert.match(line, /errors=remount-ro/);
    });
  }));

test('a journal that was not replayed: a mirror shows the disk as it lies, a clone may have it replayed', () =>
  withFolder(async (folder) => {
    const image = smallExt4(folder, (source) => writeFileSync(`${source}/f`, 'x'));
    // A journal with one transaction that changes the first block of the root folder, as a power loss leaves it.
    const replayed = `${folder}/after.img`;
    tool('cp', image, replayed);
    debugfs(replayed, 'ln /f /late');
    const block = Number(tool('debugfs', '-R', 'blocks /', image).trim().split(/\s+/)[0]);
    const blockBytes = Number(/Block size:\s+(\d+)/.exec(tool('dumpe2fs', '-h', image))![1]);
    const after = readFileSync(replayed).subarray(block * blockBytes, (block + 1) * blockBytes);
    writeFileSync(`${folder}/block`, after);
    const script = spawnSync('debugfs', ['-w', '-f', '-', image], {
      input: `jo\njw -b ${block} ${folder}/block\njc\n`,
      encoding: 'utf8',
    });
    assert.equal(script.status, 0, script.stderr);
    await withMirror(folder, image, { ways: ['nbdfuse'] }, async (mirror) => {
      assert.equal(mirror.fileSystems[0]!.unclean, true);
      assert.deepEqual([...(await listAll(await mirror.tree(), '/')).keys()].sort(), ['f', 'lost+found']);
      await assert.rejects(openMirror('nbd://127.0.0.1:1/x', { stateDirectory: `${folder}/state` }), {
        code: 'unavailable',
      });
    });
    await withServed(folder, image, async (uri) => {
      await assert.rejects(openMirror(uri, { stateDirectory: `${folder}/state`, replay: true }), {
        code: 'bad-request',
        hint: /make a clone/,
      });
    });
    // In a copy, where it can't be mounted; the clone stays as it was.
    const before = readFileSync(image);
    for (const way of ['debugfs', '7z'] as const)
      for (const isRoot of [true, false]) {
        const machine = { ...thisMachine(), isRoot };
        await withMirror(folder, image, { replay: true, ways: [way], machine }, async (mirror) => {
          const tree = await mirror.tree();
          assert.equal(tree.way, way);
          assert.deepEqual([...(await listAll(tree, '/')).keys()].sort(), ['f', 'late', 'lost+found']);
        });
      }
    assert.ok(readFileSync(image).equals(before));
    await withMirror(folder, image, { replay: true }, async (mirror) => {
      const tree = await mirror.tree();
      assert.equal(tree.way, 'nbdfuse');
      assert.deepEqual([...(await listAll(tree, '/')).keys()].sort(), ['f', 'late', 'lost+found']);
      assert.throws(() => writeFileSync(`${tree.directory}/new`, ''), { code: 'EROFS' });
    });
  }));

for (const kind of ['xfs', 'btrfs'] as const)
  test(`a file that only the log has is not there, and is after a replay (${kind})`, () =>
    withFolder(async (folder) => {
      const image = makeImage(folder, kind);
      const point = `${folder}/point`;
      const cut = `${folder}/cut.img`;
      mkdirSync(point);
      tool('mount', '-t', kind, '-o', 'loop', image, point);
      try {
        const file = openSync(`${point}/etc/late`, 'w');
        writeSync(file, 'late');
        fsyncSync(file);
        closeSync(file);
        // As the power goes now.
        tool('cp', '--sparse=always', image, cut);
      } finally {
        unmount(point, image);
      }
      await withMirror(folder, cut, {}, async (mirror) => {
        assert.equal(mirror.fileSystems[0]!.unclean, true);
        const tree = await mirror.tree();
        await assert.rejects(readAll(tree, '/etc/late'), { code: 'not-found' });
        assert.equal((await readAll(tree, '/etc/hosts')).length, 20);
      });
      await withMirror(folder, cut, { replay: true }, async (mirror) => {
        assert.equal((await readAll(await mirror.tree(), '/etc/late')).toString(), 'late');
      });
    }));

test('a clone may be written by programs, by other users too, and holds it afterwards', () =>
  withFolder(async (folder) => {
    const image = smallExt4(folder, (source) => {
      mkdirSync(`${source}/home`);
      chownSync(`${source}/home`, 65_534, 65_534);
    });
    chmodSync(folder, 0o711);
    const asNobody = (...args: string[]): number | null =>
      spawnSync('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', ...args], { cwd: '/' })
        .status;
    await withMirror(folder, image, { write: true, openToUsers: true }, async (mirror) => {
      const { directory } = await mirror.tree();
      assert.equal(asNobody('touch', `${directory}/home/made`), 0);
      assert.notEqual(asNobody('touch', `${directory}/made`), 0);
      assert.notEqual(asNobody('ls', `${folder}/state`), 0);
      writeFileSync(`${directory}/by-root`, 'x');
    });
    await withMirror(folder, image, {}, async (mirror) => {
      const tree = await mirror.tree();
      assert.equal(mirror.fileSystems[0]!.unclean, false);
      assert.equal((await readAll(tree, '/by-root')).toString(), 'x');
      assert.deepEqual((await tree.stat('/home/made')).owner, { user: 65_534, group: 65_534 });
      assert.notEqual(asNobody('ls', tree.directory!), 0, 'without being asked for, nobody else gets there');
    });
    await withServed(folder, image, (uri) =>
      assert.rejects(openMirror(uri, { stateDirectory: `${folder}/state`, write: true }), {
        message: /it can not be written/,
      }),
    );
  }));

test('programs that read a disk in place of root run as nobody, with bounded memory and the disk alone', () =>
  withFolder(async (folder) => {
    chmodSync(folder, 0o711);
    const script = 'echo "is $(id -u):$(id -G), $(ulimit -v) KiB, $(wc -c < /proc/self/fd/3)" >&2';
    writeFileSync(`${folder}/debugfs`, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const image = smallExt4(folder, (source) => writeFileSync(`${source}/f`, 'x'));
    const machine = thisMachine();
    const find = (program: Parameters<typeof machine.find>[0]): string | null =>
      program === 'debugfs' ? `${folder}/debugfs` : machine.find(program);
    const mayRead = (user: number, path: string): boolean =>
      spawnSync('setpriv', [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', 'wc', '-c', path], {
        cwd: '/',
      }).status === 0;
    for (const hasFuse of [true, false]) {
      const options = {
        ways: ['debugfs'] as const,
        machine: { ...machine, find, hasFuse },
        openToUsers: true,
      };
      await withMirror(folder, image, options, async (mirror) => {
        await assert.rejects(mirror.tree(), { hint: /is 65534:65534, 4194304 KiB, 16777216\)/ });
        const [session] = readdirSync(`${folder}/state`).filter((name) => !name.includes('.'));
        const path = `${folder}/state/${session}/${hasFuse ? 'part-0/nbd' : 'part-0.img'}`;
        assert.deepEqual([mayRead(65_534, path), mayRead(12_345, path)], [true, false]);
      });
    }
  }));

test('one of several partitions, by each way; the disk as a file', () =>
  withFolder(async (folder) => {
    const disk = `${folder}/disk`;
    writeFileSync(disk, '');
    truncateSync(disk, 200 << 20);
    execFileSync('sfdisk', ['-q', disk], {
      input: 'label: gpt\nsize=60MiB\nsize=60MiB\nsize=8MiB\n',
      env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
    });
    const start = (number: number): number =>
      Number(
        (
          JSON.parse(tool('sfdisk', '--json', disk)) as {
            partitiontable: { partitions: { start: number }[] };
          }
        ).partitiontable.partitions[number - 1]!.start,
      ) * 512;
    place(makeImage(folder, 'vfat'), disk, start(1));
    place(makeImage(folder, 'ext4'), disk, start(2));
    const bare = { ...thisMachine(), isRoot: false, hasFuse: false };
    for (const [options, ways] of [
      [{}, ['7z', 'nbdfuse']],
      [{ ways: ['debugfs', '7z'] }, ['7z', 'debugfs']],
      [{ machine: bare }, ['7z', 'debugfs']],
    ] as [Partial<OpenOptions>, string[]][])
      await withMirror(folder, disk, options, async (mirror) => {
        await assert.rejects(mirror.tree(), {
          code: 'bad-request',
          hint: /partition 1: vfat[\s\S]*partition 2: ext4/,
        });
        await assert.rejects(mirror.tree(3), { code: 'not-found' });
        const [fat, ext] = await Promise.all([mirror.tree(1), mirror.tree(2)]);
        // A kernel that has vfat mounts it.
        if (!thisMachine().kernelHas('vfat')) assert.deepEqual([fat.way, ext.way], ways);
        for (const tree of [fat, ext])
          assert.equal((await readAll(tree, '/etc/hosts')).toString(), '127.0.0.1 localhost\n');
      });
    await withMirror(folder, disk, {}, async (mirror) => {
      const file = await mirror.diskFile();
      assert.equal(lstatSync(file).size, 200 << 20);
      tool('cmp', file, disk);
      await mirror.tree(2);
      assert.equal(await mirror.diskFile(), file);
    });
    await withMirror(folder, disk, { machine: bare }, async (mirror) => {
      await assert.rejects(
        mirror.diskFile(),
        /can't be shown as a file here: kernel-nbd: it needs root; nbdfuse: \/dev\/fuse/,
      );
    });
  }));
