// Disks with file systems for tests, made by the tools of the file systems themselves. Needs root for those that have to
// be mounted to be filled.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { mountsUnder } from '../session.ts';

export const BIG_BYTES = (5 << 20) + 123;
export const HOLE_AT = 1 << 20;
export const TIME_MS = Date.parse('2021-03-04T05:06:08Z');

export function tool(program: string, ...args: string[]): string {
  const ran = spawnSync(program, args, {
    encoding: 'utf8',
    env: {
      ...process.env,
      PATH: `${process.env['PATH']}:/usr/sbin:/sbin`,
      MTOOLS_SKIP_CHECK: '1',
      TZ: 'UTC',
      LC_ALL: 'C.UTF-8',
    },
  });
  assert.equal(ran.status, 0, `${program} ${args.join(' ')} (\`npm test\` installs it): ${ran.stderr}`);
  return ran.stdout;
}

export async function withFolder(act: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mf-`);
  try {
    await act(folder);
  } finally {
    // Of the stand-in for kernel NBD (nbd-machine.ts): the kernel's own would go with its process, a script may be killed
    // before it has undone what it made. Any other mount fails the removal.
    for (const { path } of mountsUnder(`${folder}/bin`)) spawnSync('fusermount3', ['-u', '-z', path]);
    rmSync(folder, { recursive: true, force: true });
  }
}

export function bigFile(): Buffer {
  const bytes = Buffer.alloc(BIG_BYTES);
  for (let at = 0; at < BIG_BYTES; at += 4)
    if (at < HOLE_AT || at >= HOLE_AT * 2) bytes[at] = (at >> 2) % 251;
  return bytes;
}

/** `plain`: what every file system can hold. */
export function sampleFolder(path: string, plain: boolean): void {
  mkdirSync(`${path}/etc/deep/er`, { recursive: true });
  writeFileSync(`${path}/etc/hosts`, '127.0.0.1 localhost\n', { mode: 0o640 });
  writeFileSync(`${path}/etc/empty`, '');
  writeFileSync(`${path}/etc/deep/er/Übung a.txt`, 'ü');
  writeFileSync(`${path}/big.bin`, bigFile());
  if (!plain) {
    symlinkSync('hosts', `${path}/etc/link`);
    symlinkSync('../etc/deep', `${path}/etc/around`);
    symlinkSync('/etc/passwd', `${path}/etc/absolute`);
    symlinkSync('../../../../../etc/passwd', `${path}/etc/climbs`);
    symlinkSync('loop', `${path}/etc/loop`);
    symlinkSync('nowhere', `${path}/etc/dangling`);
    symlinkSync(`${'x/../'.repeat(20)}hosts`, `${path}/etc/long`);
    mkdirSync(`${path}/etc/x`);
    tool('mkfifo', `${path}/etc/pipe`);
    writeFileSync(`${path}/etc/run`, '#!/bin/sh\n', { mode: 0o755 });
    tool('chmod', '6755', `${path}/etc/run`);
    mkdirSync(`${path}/odd`);
    for (const name of ODD_NAMES) writeFileSync(Buffer.concat([Buffer.from(`${path}/odd/`), name]), name);
    lutimesSync(`${path}/etc/link`, TIME_MS / 1000, TIME_MS / 1000);
  }
  for (const name of ['etc/hosts', 'big.bin', 'etc/deep'])
    utimesSync(`${path}/${name}`, TIME_MS / 1000, TIME_MS / 1000);
}

export const ODD_NAMES = [
  'new\nline',
  'esc\u001b[31m',
  '@list',
  'star*?',
  '-rf',
  'quo"te\'',
  'back\\slash',
  'a b',
]
  .map((name) => Buffer.from(name))
  .concat(Buffer.from('bad\xff\xfename', 'latin1'));

export type Kind = 'ext2' | 'ext3' | 'ext4' | 'xfs' | 'btrfs' | 'vfat' | 'ntfs';

/** A file system with the sample in it, over a whole file. */
export function makeImage(folder: string, kind: Kind, label = 'SAMPLE'): string {
  const image = `${folder}/${kind}.img`;
  const source = `${folder}/${kind}.source`;
  const plain = kind === 'vfat' || kind === 'ntfs';
  mkdirSync(source);
  sampleFolder(source, plain);
  writeFileSync(image, '');
  // The smallest that each takes.
  truncateSync(image, (kind === 'xfs' ? 304 : kind === 'btrfs' ? 128 : 48) << 20);
  switch (kind) {
    case 'ext2':
    case 'ext3':
    case 'ext4':
      tool(`mkfs.${kind}`, '-q', '-L', label, '-d', source, image);
      break;
    case 'vfat':
      tool('mkfs.vfat', '-n', label, image);
      for (const name of ['etc', 'big.bin'])
        tool('mcopy', '-s', '-m', '-i', image, `${source}/${name}`, '::/');
      break;
    case 'ntfs':
      tool('mkntfs', '-F', '-q', '-L', label, image);
      // ntfscp makes no folders.
      tool('ntfscp', image, `${source}/etc/hosts`, 'hosts');
      tool('ntfscp', image, `${source}/big.bin`, 'big.bin');
      break;
    case 'xfs':
    case 'btrfs':
      tool(`mkfs.${kind}`, '-q', '-L', label, image);
      fillMounted(image, kind, source, `${folder}/${kind}.mounted`);
  }
  rmSync(source, { recursive: true });
  return image;
}

function fillMounted(image: string, kind: Kind, source: string, point: string): void {
  mkdirSync(point);
  tool('mount', '-t', kind, '-o', 'loop', image, point);
  try {
    tool('cp', '-a', `${source}/.`, point);
  } finally {
    unmount(point, image);
  }
}

/** Until it is so for all: a program in a mount namespace of its own, begun meanwhile, has a copy of each mount. */
export function unmount(point: string, image: string): void {
  tool('umount', point);
  const deadline = performance.now() + 20_000;
  while (tool('losetup', '--associated', image) !== '' && performance.now() < deadline) tool('sleep', '0.05');
}

/** Puts one file's bytes into another at an offset. */
export function place(image: string, into: string, at: number): void {
  const file = openSync(into, 'r+');
  try {
    const bytes = readFileSync(image);
    writeSync(file, bytes, 0, bytes.length, at);
  } finally {
    closeSync(file);
  }
}

/** Serves a file by nbdkit, a server that is not ours, in a process of its own. */
export async function withServed(
  folder: string,
  image: string,
  act: (uri: string, end: () => void) => Promise<void>,
  options: { writable?: boolean; filters?: string[] } = {},
): Promise<void> {
  const socket = `${folder}/nbd-${Math.random().toString(36).slice(2, 8)}.sock`;
  const { writable = false, filters = [] } = options;
  const ready = `${socket}.pid`;
  const args = ['-f', '-U', socket, '-P', ready, ...(writable ? [] : ['-r']), ...filters, 'file', image];
  const server = spawn('nbdkit', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const over = new Promise((resolve) => server.on('close', resolve));
  try {
    while (!existsSync(ready)) {
      assert.equal(server.exitCode, null, 'nbdkit serves the image (`npm test` installs it)');
      await pause(10);
    }
    await act(`nbd+unix:///?socket=${socket}`, () => server.kill('SIGKILL'));
  } finally {
    server.kill('SIGKILL');
    await over;
  }
}
