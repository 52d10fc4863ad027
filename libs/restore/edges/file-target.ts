// A regular file or a block device as what is restored onto. Devices are opened for this process alone: Linux refuses
// that while a file system, swap or a volume group has them.
import { execFile } from 'node:child_process';
import { constants, promises as fs, readdirSync, readFileSync, realpathSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { MidmirrorError } from '@midmirror/basis';
import { type Target, targetError, writeZeroesTo } from './target.ts';

const run = promisify(execFile);

/** What stands at a path. */
export type FileFound =
  | { kind: 'absent' }
  | { kind: 'file'; path: string; sizeBytes: number; identity: string }
  | { kind: 'device'; path: string; sizeBytes: number };

/** Throws `bad-request` when nothing can be restored onto it, `conflict` when something else uses it. */
export async function lookAtFile(name: string): Promise<FileFound> {
  const stats = await fs.stat(name).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return null;
    throw targetError(name, 'stat', cause);
  });
  if (stats === null) {
    const folder = await fs.stat(dirname(name)).catch(() => null);
    if (folder?.isDirectory() === true) return { kind: 'absent' };
    throw new MidmirrorError('bad-request', `${dirname(name)} is no folder, so ${name} can't be made in it`);
  }
  const path = realpathSync(name);
  if (stats.isFile()) {
    const loop = loopOf(path);
    if (loop === null) return { kind: 'file', path, sizeBytes: stats.size, identity: identityOf(stats) };
    throw new MidmirrorError('conflict', `${name} is in use: it is the loop device ${loop}`, {
      hint: `detach it first: losetup --detach ${loop}`,
    });
  }
  if (stats.isBlockDevice()) {
    // Root may open such a device for writing; only the writes fail.
    if (deviceFact(name, stats, 'ro') === 0)
      return { kind: 'device', path, sizeBytes: deviceFact(name, stats, 'size') * 512 };
    throw new MidmirrorError('bad-request', `${name} can't be written: the device is read-only`);
  }
  throw new MidmirrorError('bad-request', `${name} is neither a file nor a block device`);
}

/** `alone`: a block device. */
export async function openFile(
  name: string,
  sizeBytes: number,
  { device, readOnly }: { device: boolean; readOnly: boolean },
): Promise<FileTarget> {
  const flags = (readOnly ? constants.O_RDONLY : constants.O_RDWR) | (device ? constants.O_EXCL : 0);
  try {
    return new FileTarget(name, sizeBytes, await fs.open(name, flags), device);
  } catch (cause) {
    throw targetError(name, 'open', cause);
  }
}

/**
 * A new file of holes under a name that nobody looks for, durable when it resolves: what bears its own name has a
 * record, which knows it.
 */
export async function makeFile(name: string, sizeBytes: number): Promise<NewFile> {
  const temporary = `${name}.mim-restore-new`;
  try {
    await fs.rm(temporary, { force: true });
    const handle = await fs.open(temporary, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL);
    try {
      await handle.truncate(sizeBytes);
      await handle.sync();
    } catch (error) {
      await handle.close();
      throw error;
    }
    return new NewFile(temporary, new FileTarget(name, sizeBytes, handle, false));
  } catch (cause) {
    throw targetError(name, 'making', cause);
  }
}

export class NewFile {
  readonly #temporary: string;
  readonly target: FileTarget;

  constructor(temporary: string, target: FileTarget) {
    this.#temporary = temporary;
    this.target = target;
  }

  /** Gives it its name, unless a file has come there meanwhile. Durable when it resolves. */
  async place(): Promise<void> {
    const { name } = this.target;
    try {
      await fs.link(this.#temporary, name).then(
        () => fs.unlink(this.#temporary),
        async (error: NodeJS.ErrnoException) => {
          // Not every file system has links.
          if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes(error.code ?? '')) throw error;
          await fs.rename(this.#temporary, name);
        },
      );
      await syncFolderOf(name);
    } catch (cause) {
      throw targetError(name, 'making', cause);
    }
  }
}

export async function syncFolderOf(path: string): Promise<void> {
  const folder = await fs.open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

export class FileTarget implements Target {
  readonly name: string;
  readonly sizeBytes: number;
  readonly blockBytes = 512;
  readonly canFlush = true;
  readonly #handle: fs.FileHandle;
  readonly #device: boolean;

  constructor(name: string, sizeBytes: number, handle: fs.FileHandle, device: boolean) {
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.#handle = handle;
    this.#device = device;
  }

  async identity(): Promise<string> {
    return identityOf(await this.#attempt('stat', () => this.#handle.stat()));
  }

  async read(startBytes: number, lengthBytes: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < lengthBytes; ) {
      const { bytesRead } = await this.#attempt('read', () =>
        this.#handle.read(into, done, lengthBytes - done, startBytes + done),
      );
      if (bytesRead === 0) throw new MidmirrorError('io', `${this.name} ends at ${startBytes + done}`);
      done += bytesRead;
    }
  }

  async write(startBytes: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.#attempt('write', () =>
        this.#handle.write(bytes, done, bytes.length - done, startBytes + done),
      );
      done += bytesWritten;
    }
  }

  zeroes(startBytes: number, lengthBytes: number): Promise<void> {
    return writeZeroesTo(this, startBytes, lengthBytes);
  }

  /** Node has no SEEK_HOLE: holes are read, which costs little. */
  async zeroParts(
    _startBytes: number,
    lengthBytes: number,
  ): Promise<{ lengthBytes: number; zeroes: boolean }[]> {
    return [{ lengthBytes, zeroes: false }];
  }

  flush(): Promise<void> {
    return this.#attempt('fsync', () => this.#handle.sync());
  }

  /** Node has no posix_fadvise; `dd` lets go of a file's clean pages when it is to copy nothing of it. */
  async dropCaches(): Promise<boolean> {
    const file = `if=${this.name}`;
    return await run('dd', [file, 'iflag=nocache', 'count=0', 'status=none']).then(
      () => this.#leavesMemory(),
      () => false,
    );
  }

  async close(): Promise<void> {
    await this.#attempt('close', () => this.#handle.close());
  }

  /** In a file system of memory there is nothing else to read from. */
  async #leavesMemory(): Promise<boolean> {
    if (this.#device) return true;
    const { type } = await fs.statfs(this.name);
    return type !== TMPFS_MAGIC && type !== RAMFS_MAGIC;
  }

  async #attempt<T>(doing: string, act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      throw targetError(this.name, doing, cause);
    }
  }
}

function identityOf({ ino, birthtimeMs }: Stats): string {
  return `inode ${ino} of ${birthtimeMs}`;
}

const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;

function numbersOf({ rdev }: Stats): string {
  // As glibc packs them.
  const major = ((rdev >> 8) & 0xfff) | (Math.floor(rdev / 2 ** 32) & ~0xfff);
  const minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
  return `${major}:${minor}`;
}

/** A number that the kernel tells of a block device. */
function deviceFact(name: string, stats: Stats, fact: 'size' | 'ro'): number {
  try {
    return Number(readFileSync(`/sys/dev/block/${numbersOf(stats)}/${fact}`, 'utf8'));
  } catch (cause) {
    throw targetError(name, 'asking the kernel', cause);
  }
}

/** The loop device that serves a file. */
function loopOf(path: string): string | null {
  let names: string[];
  try {
    names = readdirSync('/sys/block').filter((each) => each.startsWith('loop'));
  } catch {
    return null;
  }
  const backing = (name: string): string => {
    try {
      return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim();
    } catch {
      return '';
    }
  };
  const found = names.find((name) => backing(name) === path);
  return found === undefined ? null : `/dev/${found}`;
}
