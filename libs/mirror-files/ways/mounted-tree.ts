// A file system of a mirror, mounted by the kernel: read-only, nothing on it run, no device, no set-id bit, no symbolic
// link followed. What is on the disk may be hostile; the kernel's driver reads it.
import { type BigIntStats, constants, type Dirent, promises as fs } from 'node:fs';
import { MidmirrorError, messageOf, msOf } from '@midmirror/basis';
import type { FileSystem, FileSystemKind } from '../layout/layout.ts';
import { limits } from '../limits.ts';
import { type Machine, required } from '../machine.ts';
import type { Entry, EntryKind, ReadRange } from '../mirror-files.ts';
import { decodeName, encodeName } from '../names.ts';
import { notFound, type Path, printPath } from '../paths.ts';
import { failed, run, succeed } from '../programs.ts';
import type { Session } from '../session.ts';
import { Gate } from './gate.ts';
import { damagedEntry, type RawTree } from './raw-tree.ts';

/** Of this process: see the limit. */
const gate = new Gate(limits.fileCallsMax);

/** `read`: as it lies on the disk. `replay`: after its journal was replayed. `write`: that, and programs may write. */
export type Access = 'read' | 'replay' | 'write';

const ALWAYS = ['nosuid', 'nodev', 'noexec', 'noatime'];

/**
 * The kernel's driver; options of each mount; those by which what is in a journal is left there, and nothing is written.
 * Two moments of one disk have one UUID. `errors`: a superblock may ask for a panic.
 */
const DRIVERS: Readonly<Record<FileSystemKind, { driver: string; options: string[]; noReplay: string[] }>> = {
  ext2: { driver: 'ext4', options: ['errors=remount-ro'], noReplay: ['noload'] },
  ext3: { driver: 'ext4', options: ['errors=remount-ro'], noReplay: ['noload'] },
  ext4: { driver: 'ext4', options: ['errors=remount-ro'], noReplay: ['noload'] },
  xfs: { driver: 'xfs', options: ['nouuid'], noReplay: ['norecovery'] },
  btrfs: { driver: 'btrfs', options: [], noReplay: ['rescue=nologreplay'] },
  vfat: { driver: 'vfat', options: ['utf8', 'tz=UTC', 'errors=remount-ro'], noReplay: [] },
  exfat: { driver: 'exfat', options: ['errors=remount-ro'], noReplay: [] },
  ntfs: { driver: 'ntfs3', options: [], noReplay: [] },
  iso9660: { driver: 'iso9660', options: [], noReplay: [] },
  squashfs: { driver: 'squashfs', options: [], noReplay: [] },
  f2fs: { driver: 'f2fs', options: [], noReplay: ['norecovery'] },
  erofs: { driver: 'erofs', options: [], noReplay: [] },
};

/** Null when this machine can mount it, else why not. */
export async function whyNoMount(machine: Machine, { kind, uuid }: FileSystem): Promise<string | null> {
  if (!machine.isRoot) return 'mounting needs root';
  for (const program of ['losetup', 'mount', 'umount'] as const)
    if (machine.find(program) === null) return `${program} is missing`;
  const { driver } = DRIVERS[kind];
  if (!machine.kernelHas(driver) && !(await canLoad(machine, driver)))
    return `the kernel has no driver for ${kind}`;
  // Before Linux 6.7 btrfs knows a file system by its UUID alone, and would show another moment of it.
  if (
    kind === 'btrfs' &&
    (await isThere(`/sys/fs/btrfs/${uuid}`)) &&
    !(await isThere('/sys/fs/btrfs/features/temp_fsid'))
  )
    return 'another moment of this btrfs is mounted, and the kernel (before 6.7) can not tell them apart';
  return null;
}

async function canLoad(machine: Machine, driver: string): Promise<boolean> {
  const modprobe = machine.find('modprobe');
  return modprobe !== null && (await run(modprobe, ['--dry-run', '--quiet', driver])).status === 0;
}

async function isThere(path: string): Promise<boolean> {
  return await fs.access(path).then(
    () => true,
    () => false,
  );
}

/** `disk`: a file or device of the whole disk; one that can be written unless the access is `read`. */
export async function mountTree(
  session: Session,
  disk: string,
  fileSystem: FileSystem,
  access: Access,
): Promise<RawTree> {
  const { machine } = session;
  const { number, kind, startBytes, sizeBytes } = fileSystem;
  const { driver, options, noReplay } = DRIVERS[kind];
  const point = `${session.folder}/files-${number}`;
  await fs.mkdir(point, { recursive: true });
  const range = ['--offset', String(startBytes), '--sizelimit', String(sizeBytes)];
  const args = ['--find', '--show', ...(access === 'read' ? ['--read-only'] : []), ...range, disk];
  const loop = (await succeed(required(machine, 'losetup'), args)).trim();
  try {
    const wanted = [
      access === 'write' ? 'rw' : 'ro',
      ...ALWAYS,
      ...options,
      ...(access === 'read' ? noReplay : []),
    ];
    await mount(machine, driver, [...wanted, 'nosymfollow'], wanted, loop, point);
  } finally {
    // It goes when it is unmounted, or at once when it could not be mounted.
    await run(required(machine, 'losetup'), ['--detach', loop]);
  }
  return new MountedTree(point);
}

/** `nosymfollow` is not known before Linux 5.10. */
async function mount(
  machine: Machine,
  driver: string,
  best: readonly string[],
  enough: readonly string[],
  device: string,
  point: string,
): Promise<void> {
  const program = required(machine, 'mount');
  const how = (options: readonly string[]): string[] => [
    '-i',
    '-t',
    driver,
    '-o',
    options.join(','),
    device,
    point,
  ];
  const first = await run(program, how(best));
  if (first.status === 0) return;
  const second = await run(program, how(enough));
  if (second.status !== 0)
    throw new MidmirrorError(
      'corrupt',
      `the kernel does not mount it: ${failed(program, second.status, second.stderr)}`,
    );
}

class MountedTree implements RawTree {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  async entry(path: Path): Promise<Entry> {
    const stats = await this.#call(path, (real) => fs.lstat(real, { bigint: true }));
    return entryOf(path.at(-1) ?? '/', stats);
  }

  async *list(path: Path): AsyncGenerator<Entry> {
    // Of buffers: a name need not be text. The types of Node know only text here.
    const open = fs.opendir as unknown as (path: Buffer, options: { encoding: 'buffer' }) => Promise<Folder>;
    const folder = await this.#call(path, (real) => open(real, { encoding: 'buffer' }));
    try {
      for (;;) {
        const next = await this.#call(path, () => folder.read());
        if (next === null) return;
        const name = decodeName(next.name);
        yield await this.entry([...path, name]).catch((error: unknown) => damagedOnly(name, error));
      }
    } finally {
      await folder.close();
    }
  }

  async readLink(path: Path): Promise<string> {
    return decodeName(await this.#call(path, (real) => fs.readlink(real, { encoding: 'buffer' })));
  }

  async *read(path: Path, _entry: Entry, { offset, length }: Required<ReadRange>): AsyncGenerator<Buffer> {
    // Not the target of a link that stands here by now, and no waiting for the other end of a pipe.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const file = await this.#call(path, (real) => fs.open(real, flags));
    try {
      for (let at = offset; at < offset + length; ) {
        const buffer = Buffer.allocUnsafe(Math.min(limits.readBytes, offset + length - at));
        const { bytesRead } = await this.#call(path, () => file.read(buffer, 0, buffer.length, at));
        if (bytesRead === 0) return;
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }

  async #call<T>(path: Path, act: (real: Buffer) => Promise<T>): Promise<T> {
    const real = Buffer.concat([Buffer.from(this.directory), ...path.map((name) => encodeName(`/${name}`))]);
    try {
      return await gate.pass(() => act(real));
    } catch (error) {
      throw readError(path, error);
    }
  }
}

interface Folder {
  read(): Promise<Dirent<Buffer> | null>;
  close(): Promise<void>;
}

function damagedOnly(name: string, error: unknown): Entry {
  if (error instanceof MidmirrorError && error.code === 'corrupt') return damagedEntry(name);
  throw error;
}

/** By number: Node has no names for all. ELOOP: a folder within itself; links are not followed here. */
const DAMAGED: ReadonlyMap<number, string> = new Map([
  [5, 'EIO'],
  [40, 'ELOOP'],
  [61, 'ENODATA'],
  [74, 'EBADMSG: a checksum is wrong'],
  [75, 'EOVERFLOW'],
  [117, 'EUCLEAN: its structure is wrong'],
]);

function readError(path: Path, error: unknown): MidmirrorError {
  const { code = '', errno = 0 } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return notFound(path);
  if (code === 'ENAMETOOLONG') return notFound(path, 'its name is too long');
  const how = DAMAGED.get(-errno);
  if (how !== undefined)
    return new MidmirrorError(
      'corrupt',
      `${printPath(path)} can't be read: it is damaged at this point (${how})`,
      {
        hint: 'or the appliance has gone away; another point may have it whole',
        cause: error,
      },
    );
  return new MidmirrorError('io', `${printPath(path)} can't be read: ${code || messageOf(error)}`, {
    cause: error,
  });
}

function entryOf(name: string, stats: BigIntStats): Entry {
  const kind = kindOf(stats);
  return {
    name,
    kind,
    sizeBytes: kind === 'file' ? Number(stats.size) : 0,
    mode: Number(stats.mode) & 0o7777,
    owner: { user: Number(stats.uid), group: Number(stats.gid) },
    modifiedMs: msOf(stats.mtimeNs),
  };
}

function kindOf(stats: BigIntStats): EntryKind {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  return stats.isSymbolicLink() ? 'symlink' : 'special';
}
