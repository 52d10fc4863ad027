// The machine's files. Plain descriptors and callbacks: no promise and no object on the synchronous paths.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type PoolFile, type PoolFiles, writeZeroes } from './files.ts';

const fsOpen = promisify(fs.open) as (path: string, flags: string) => Promise<number>;
const fsRead = promisify(fs.read) as (
  fd: number,
  target: Uint8Array,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesRead: number }>;
const fsWritev = promisify(fs.writev) as (
  fd: number,
  buffers: readonly Uint8Array[],
  position: number,
) => Promise<{ bytesWritten: number }>;
const fsDatasync = promisify(fs.fdatasync);
const fsClose = promisify(fs.close);
const fsStat = promisify(fs.fstat);
const fsTruncate = promisify(fs.ftruncate);
const run = promisify(execFile);

export function nodeFiles(): PoolFiles {
  return {
    async open(path, mode) {
      const flags = { read: 'r', write: 'r+', create: 'wx+' }[mode];
      return attempt('open', path, async () => new NodeFile(path, await fsOpen(path, flags)));
    },
    async exists(path) {
      return fs.promises.access(path).then(
        () => true,
        () => false,
      );
    },
    rename: (from, to) => attempt('rename', from, () => fs.promises.rename(from, to)),
    unlink: (path) => attempt('unlink', path, () => fs.promises.unlink(path)),
    async makeDirectory(path) {
      await attempt('mkdir', path, async () => {
        const first = await fs.promises.mkdir(path, { recursive: true });
        if (first !== undefined)
          for (let at = path; at.length >= first.length; at = dirname(at)) await syncDirectory(dirname(at));
      });
    },
    removeDirectory: (path) =>
      attempt('rm', path, () => fs.promises.rm(path, { recursive: true, force: true })),
    list: (path) =>
      attempt('readdir', path, async () => {
        try {
          return (await fs.promises.readdir(path)).sort();
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
          throw error;
        }
      }),
    listSync(path) {
      try {
        return fs.readdirSync(path).sort();
      } catch (error) {
        throw fileError('readdir', path, error);
      }
    },
    syncDirectory: (path) => attempt('fsync', path, () => syncDirectory(path)),
  };
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await fs.promises.open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * The kernel gives the number of a closed descriptor to the next file that is opened: whoever used it then would
 * write into that one. So a file is closed once, after the last operation on it has ended, and refuses any later.
 */
class NodeFile implements PoolFile {
  readonly path: string;
  readonly #fd: number;
  #underWay = 0;
  #closed = false;
  #whenIdle: (() => void) | null = null;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  readSync(target: Uint8Array, targetOffset: number, length: number, position: number): number {
    this.#refuseClosed('read');
    try {
      return fs.readSync(this.#fd, target, targetOffset, length, position);
    } catch (error) {
      throw fileError('read', this.path, error);
    }
  }

  read(target: Uint8Array, targetOffset: number, length: number, position: number): Promise<number> {
    return this.#attempt('read', async () => {
      let done = 0;
      while (done < length) {
        const { bytesRead } = await fsRead(
          this.#fd,
          target,
          targetOffset + done,
          length - done,
          position + done,
        );
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    });
  }

  writevSync(buffers: readonly Uint8Array[], position: number): void {
    this.#refuseClosed('write');
    try {
      let written = fs.writevSync(this.#fd, buffers as Uint8Array[], position);
      let left = remaining(buffers, written);
      while (left.length > 0) {
        const count = fs.writevSync(this.#fd, left, position + written);
        written += count;
        left = remaining(left, count);
      }
    } catch (error) {
      throw fileError('write', this.path, error);
    }
  }

  writev(buffers: readonly Uint8Array[], position: number): Promise<void> {
    return this.#attempt('write', async () => {
      let left: readonly Uint8Array[] = buffers;
      let at = position;
      while (left.length > 0) {
        const { bytesWritten } = await fsWritev(this.#fd, left, at);
        at += bytesWritten;
        left = remaining(left, bytesWritten);
      }
    });
  }

  datasync(): Promise<void> {
    return this.#attempt('fdatasync', () => fsDatasync(this.#fd));
  }

  datasyncSync(): void {
    this.#refuseClosed('fdatasync');
    try {
      fs.fdatasyncSync(this.#fd);
    } catch (error) {
      throw fileError('fdatasync', this.path, error);
    }
  }

  async allocate(lengthBytes: number): Promise<void> {
    // Node has no fallocate; the command of util-linux reserves the blocks without writing them.
    try {
      await run('fallocate', ['--length', String(lengthBytes), this.path]);
      return;
    } catch (error) {
      const text = messageOf(error);
      if (/no space/i.test(text))
        throw new MidmirrorError('no-space', `no space left to allocate ${this.path}`);
      if (!/ENOENT|not supported/i.test(text)) throw fileError('fallocate', this.path, error);
    }
    const size = await this.size();
    await writeZeroes(this, size, lengthBytes - size);
  }

  async punchHole(position: number, lengthBytes: number): Promise<boolean> {
    try {
      await run('fallocate', [
        '--punch-hole',
        '--offset',
        String(position),
        '--length',
        String(lengthBytes),
        this.path,
      ]);
      return true;
    } catch (error) {
      if (/ENOENT|not supported/i.test(messageOf(error))) return false;
      throw fileError('punch hole', this.path, error);
    }
  }

  truncate(lengthBytes: number): Promise<void> {
    return this.#attempt('truncate', () => fsTruncate(this.#fd, lengthBytes));
  }

  size(): Promise<number> {
    return this.#attempt('stat', async () => (await fsStat(this.#fd)).size);
  }

  async close(): Promise<void> {
    this.#refuseClosed('close');
    this.#closed = true;
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await attempt('close', this.path, () => fsClose(this.#fd));
  }

  async #attempt<T>(operation: string, act: () => Promise<T>): Promise<T> {
    this.#refuseClosed(operation);
    this.#underWay += 1;
    try {
      return await act();
    } catch (error) {
      throw fileError(operation, this.path, error);
    } finally {
      this.#underWay -= 1;
      if (this.#underWay === 0) this.#whenIdle?.();
    }
  }

  #refuseClosed(operation: string): void {
    if (this.#closed) throw new MidmirrorError('io', `${operation} of ${this.path} after it was closed`);
  }
}

function remaining(buffers: readonly Uint8Array[], written: number): Uint8Array[] {
  const left: Uint8Array[] = [];
  let skip = written;
  for (const buffer of buffers) {
    if (skip >= buffer.length) skip -= buffer.length;
    else {
      left.push(skip === 0 ? buffer : buffer.subarray(skip));
      skip = 0;
    }
  }
  return left;
}

async function attempt<T>(operation: string, path: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw error instanceof MidmirrorError ? error : fileError(operation, path, error);
  }
}

function fileError(operation: string, path: string, cause: unknown): MidmirrorError {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new MidmirrorError('no-space', `no space left for ${operation} of ${path}`, {
      cause,
      hint: 'free space on the file system of the data directory',
    });
  }
  if (code === 'ENOENT') return new MidmirrorError('not-found', `${path} does not exist`, { cause });
  if (code === 'EEXIST') return new MidmirrorError('conflict', `${path} exists already`, { cause });
  return new MidmirrorError('io', `${operation} of ${path} failed: ${messageOf(cause)}`, { cause });
}
