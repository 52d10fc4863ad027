// What every way promises of the files of a mirror, whatever reads them: run by each of them on each kind of file system
// that it knows.
import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { type Entry, type FileTree, type Machine, openMirror, thisMachine, type Way } from '../index.ts';
import { decodeName } from '../names.ts';
import { mountsUnder } from '../session.ts';
import {
  bigFile,
  BIG_BYTES,
  type Kind,
  makeImage,
  ODD_NAMES,
  TIME_MS,
  withFolder,
  withServed,
} from './images.ts';

export interface Case {
  way: Way;
  kind: Kind;
  /** Of the machine that is shown to it; default: this one. */
  machine?: (folder: string) => Machine;
  words?: string;
  /** The way gives back names with control characters. */
  oddNames?: boolean;
}

export async function readAll(tree: FileTree, path: string, range = {}): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of tree.read(path, range)) parts.push(part);
  return Buffer.concat(parts);
}

export async function listAll(tree: FileTree, path: string): Promise<Map<string, Entry>> {
  const found = new Map<string, Entry>();
  for await (const entry of tree.list(path)) found.set(entry.name, entry);
  return found;
}

export function contract({
  way,
  kind,
  machine = () => thisMachine(),
  words = way,
  oddNames = true,
}: Case): void {
  const isPosix = kind !== 'vfat' && kind !== 'ntfs';
  const etc = kind === 'ntfs' ? '' : '/etc';
  const mounts = way === 'kernel-nbd' || way === 'nbdfuse';

  test(`${words} reads ${kind}`, () =>
    withFolder(async (folder) => {
      const stateDirectory = `${folder}/state`;
      await withServed(folder, makeImage(folder, kind), async (uri) => {
        const mirror = await openMirror(uri, { stateDirectory, ways: [way], machine: machine(folder) });
        try {
          assert.deepEqual(
            mirror.fileSystems.map((each) => [each.number, each.kind, each.startBytes]),
            [[0, kind, 0]],
          );
          const tree = await mirror.tree();
          assert.equal(await mirror.tree(0), tree, 'reached once');
          assert.equal(tree.way, way);
          await reads(tree);
          await refuses(tree);
          if (isPosix) await links(tree);
          if (isPosix && oddNames) await names(tree);
          await copies(tree, folder);
          await directory(tree);
        } finally {
          await mirror.close();
        }
        await mirror.close();
        assert.deepEqual(readdirSync(stateDirectory), [], 'nothing is left');
        assert.deepEqual(mountsUnder(stateDirectory), []);
        assert.ok(!loopFiles().some((file) => file.startsWith(folder)));
      });
    }));

  async function reads(tree: FileTree): Promise<void> {
    const hosts = await tree.stat(`${etc}/hosts`);
    assert.equal(hosts.name, 'hosts');
    assert.equal(hosts.kind, 'file');
    assert.equal(hosts.sizeBytes, 20);
    if (isPosix) {
      assert.equal(hosts.mode, 0o640);
      assert.deepEqual(hosts.owner, { user: 0, group: 0 });
    }
    // ntfscp gives a file the time of its writing.
    if (kind !== 'ntfs') assert.equal(hosts.modifiedMs, TIME_MS);
    assert.equal((await readAll(tree, `${etc}/hosts`)).toString(), '127.0.0.1 localhost\n');
    const big = bigFile();
    assert.ok((await readAll(tree, '/big.bin')).equals(big));
    for (const [offset, length] of [
      [0, 1],
      [4095, 3],
      [(1 << 20) - 1, (1 << 20) + 2],
      [BIG_BYTES - 5, 100],
      [BIG_BYTES, 1],
      [BIG_BYTES + 10, 1],
    ] as const)
      assert.ok(
        (await readAll(tree, '/big.bin', { offset, length })).equals(big.subarray(offset, offset + length)),
        `${offset}+${length}`,
      );
    const root = await tree.stat('/');
    assert.deepEqual([root.name, root.kind], ['/', 'directory']);
    const top = await listAll(tree, '/');
    assert.equal(top.get('big.bin')!.sizeBytes, BIG_BYTES);
    assert.ok(!top.has('.') && !top.has('..'));
    if (kind === 'ntfs') return;
    assert.equal(top.get('etc')!.kind, 'directory');
    assert.equal((await readAll(tree, '/etc/empty')).length, 0);
    assert.equal((await readAll(tree, '//etc/./deep/er/Übung a.txt')).toString(), 'ü');
    assert.deepEqual(await listAll(tree, '/etc/deep/er').then((found) => [...found.keys()]), ['Übung a.txt']);
  }

  async function refuses(tree: FileTree): Promise<void> {
    const here = existsSync(`${etc}/passwd`);
    assert.ok(here || etc === '');
    for (const [path, code] of [
      ['/nowhere', 'not-found'],
      ['/nowhere/x', 'not-found'],
      ['/big.bin/x', 'not-found'],
      [`${etc}/hosts/`, null],
      ['/../etc/passwd', 'bad-request'],
      ['/etc/../../etc/passwd', 'bad-request'],
      ['etc/hosts', 'bad-request'],
      ['/a\0b', 'bad-request'],
      [`/${'a'.repeat(5000)}`, 'bad-request'],
      [`/${'a'.repeat(300)}`, 'not-found'],
    ] as const)
      if (code === null) await tree.stat(path);
      else await assert.rejects(tree.stat(path), { code }, path);
    await assert.rejects(readAll(tree, '/'), { code: 'bad-request' });
    await assert.rejects(listAll(tree, '/big.bin'), { code: 'bad-request' });
    await assert.rejects(tree.readLink('/big.bin'), { code: 'bad-request' });
    await assert.rejects(readAll(tree, '/big.bin', { offset: -1 }), { code: 'bad-request' });
    // A reader may stop in the middle.
    for await (const part of tree.read('/big.bin')) {
      assert.ok(part.length > 0);
      break;
    }
  }

  async function links(tree: FileTree): Promise<void> {
    assert.equal(await tree.readLink('/etc/link'), 'hosts');
    assert.equal((await tree.stat('/etc/link', { follow: false })).kind, 'symlink');
    assert.equal((await tree.stat('/etc/link')).sizeBytes, 20);
    assert.equal((await readAll(tree, '/etc/link')).length, 20);
    assert.equal((await readAll(tree, '/etc/around/er/Übung a.txt')).toString(), 'ü');
    assert.equal(await tree.readLink('/etc/long'), `${'x/../'.repeat(20)}hosts`);
    assert.equal((await readAll(tree, '/etc/long')).length, 20);
    await assert.rejects(readAll(tree, '/etc/absolute'), (error: Error & { hint: string }) => {
      assert.match(error.message, /\/etc\/absolute is a symbolic link to \/etc\/passwd/);
      assert.match(error.hint, /ask for \/etc\/passwd/);
      return true;
    });
    await assert.rejects(readAll(tree, '/etc/climbs'), /leaves the file system/);
    await assert.rejects(readAll(tree, '/etc/loop'), /too many symbolic links/);
    await assert.rejects(readAll(tree, '/etc/dangling'), { code: 'not-found' });
    await assert.rejects(readAll(tree, '/etc/pipe'), /a pipe or a socket/);
    assert.equal((await tree.stat('/etc/pipe')).kind, 'special');
  }

  async function names(tree: FileTree): Promise<void> {
    const found = await listAll(tree, '/odd');
    assert.deepEqual([...found.keys()].sort(), ODD_NAMES.map((name) => decodeName(name)).sort());
    for (const name of ODD_NAMES)
      assert.ok((await readAll(tree, `/odd/${decodeName(name)}`)).equals(name), decodeName(name));
  }

  async function copies(tree: FileTree, folder: string): Promise<void> {
    const out = `${folder}/out`;
    const copied = await tree.copy('/big.bin', out, { owners: false });
    assert.deepEqual([copied.files, copied.bytes], [1, BIG_BYTES]);
    assert.ok(readFileSync(out).equals(bigFile()));
    assert.ok(lstatSync(out).blocks * 512 < BIG_BYTES, 'the hole is one again');
    if (kind !== 'ntfs') assert.equal(lstatSync(out).mtimeMs, TIME_MS);
    await assert.rejects(tree.copy('/big.bin', out, { owners: false }), { code: 'conflict' });
    await assert.rejects(tree.copy('/nowhere', `${out}2`, { owners: false }), { code: 'not-found' });
    assert.ok(!existsSync(`${out}2`));
    if (kind === 'ntfs') return;
    const trees = `${folder}/trees`;
    const all = await tree.copy('/etc', trees, { owners: process.getuid?.() === 0 });
    assert.equal(readFileSync(`${trees}/deep/er/Übung a.txt`, 'utf8'), 'ü');
    assert.equal(lstatSync(`${trees}/hosts`).mtimeMs, TIME_MS);
    assert.equal(all.failed, 0, JSON.stringify(all.reasons));
    assert.equal(lstatSync(`${trees}/deep`).mtimeMs, TIME_MS);
    if (!isPosix) return;
    assert.equal(lstatSync(`${trees}/hosts`).mode & 0o7777, 0o640);
    assert.equal(lstatSync(`${trees}/run`).mode & 0o7777, 0o755, 'no set-id bit');
    assert.equal(readlinkSync(`${trees}/absolute`), '/etc/passwd');
    assert.equal(lstatSync(`${trees}/link`).mtimeMs, TIME_MS);
    assert.ok(!existsSync(`${trees}/pipe`));
    assert.deepEqual([all.skipped, all.reasons.map(({ path }) => path)], [1, ['/etc/pipe']]);
    if (!oddNames) return;
    mkdirSync(`${folder}/odd`);
    await tree.copy('/odd', `${folder}/odd/copy`, { owners: false });
    const there = readdirSync(`${folder}/odd/copy`, { encoding: 'buffer' });
    assert.deepEqual(there.map(String).sort(), ODD_NAMES.map(String).sort());
  }

  async function directory(tree: FileTree): Promise<void> {
    if (!mounts) return assert.equal(tree.directory, null);
    const at = tree.directory!;
    assert.equal(readFileSync(`${at}/etc/hosts`, 'utf8'), '127.0.0.1 localhost\n');
    assert.throws(() => writeFileSync(`${at}/new`, ''), { code: 'EROFS' });
    assert.throws(() => statSync(`${at}/etc/absolute`), { code: 'ELOOP' }, 'links are not followed');
    const options = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((line) => line.includes(` ${at} `))!;
    for (const option of ['ro', 'nosuid', 'nodev', 'noexec'])
      assert.match(options, new RegExp(`[ ,]${option}[ ,]`));
  }
}

export function loopFiles(): string[] {
  return readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop'))
    .flatMap((name) => {
      try {
        return [readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim()];
      } catch {
        return [];
      }
    });
}
