// A shelf on a directory: an offsite disk, an NFS mount. Nothing but exclusive creation, rename and fsync is asked of
// the file system, which NFS has too.
import { MidmirrorError } from '@midmirror/basis';
import { nodeFiles, type PoolFile, type PoolFiles, readWhole, replaceFile } from '@midmirror/pool';
import { LABEL_BYTES_MAX, PIECE_BYTES_MAX, UNSYNCED_BYTES_MAX } from '../limits.ts';
import type { Shelf, ShelfEntry, ShelfWriter } from './shelf.ts';

export interface DirectoryOptions {
  /** Default: the machine's files. */
  readonly files?: PoolFiles;
}

/** `not-found` when the directory is not there: it may be the mount that is missing. */
export async function openDirectoryShelf(
  directory: string,
  { files = nodeFiles() }: DirectoryOptions = {},
): Promise<Shelf> {
  if (!(await files.exists(directory)))
    throw new MidmirrorError('not-found', `the tape library's directory ${directory} does not exist`, {
      hint: 'mount what should be there, or make it: mkdir',
    });
  return new DirectoryShelf(directory, files);
}

class DirectoryShelf implements Shelf {
  readonly url: string;
  readonly #directory: string;
  readonly #files: PoolFiles;

  constructor(directory: string, files: PoolFiles) {
    this.#directory = directory;
    this.#files = files;
    this.url = `file://${directory}`;
  }

  async list(under: string): Promise<ShelfEntry[]> {
    const entries: ShelfEntry[] = [];
    if (under.endsWith('/')) {
      for (const inner of await this.#inFolder(under.slice(0, -1)))
        entries.push({ name: `${under}${inner}`, bytes: null });
      return entries;
    }
    for (const name of await this.#files.list(this.#directory)) {
      // Barcodes have no dot, files of the library have one; what else lies here is not ours.
      if (name.includes('.')) entries.push({ name, bytes: null });
      else if (under === '')
        for (const inner of await this.#inFolder(name))
          entries.push({ name: `${name}/${inner}`, bytes: null });
    }
    return entries.filter(({ name }) => name.startsWith(under));
  }

  async #inFolder(name: string): Promise<string[]> {
    try {
      return await this.#files.list(this.#path(name));
    } catch (error) {
      if ((error as { cause?: NodeJS.ErrnoException }).cause?.code === 'ENOTDIR') return [];
      throw error;
    }
  }

  async size(name: string): Promise<number> {
    const file = await this.#files.open(this.#path(name), 'read');
    try {
      return await file.size();
    } finally {
      await file.close();
    }
  }

  async get(name: string): Promise<Uint8Array | null> {
    try {
      return await readWhole(this.#files, this.#path(name), LABEL_BYTES_MAX);
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'not-found') return null;
      throw error;
    }
  }

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    const [folder, last] = this.#split(name);
    await this.#files.makeDirectory(folder);
    await replaceFile(this.#files, folder, last, bytes);
  }

  async putNew(name: string, bytes: Uint8Array): Promise<void> {
    if (await this.#files.exists(this.#path(name)))
      throw new MidmirrorError('conflict', `${this.#path(name)} exists already`);
    await this.replace(name, bytes);
  }

  async claim(name: string, bytes: Uint8Array): Promise<boolean> {
    let file: PoolFile;
    try {
      file = await this.#files.open(this.#path(name), 'create');
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'conflict') return false;
      throw error;
    }
    try {
      await file.writev([bytes], 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    await this.#files.syncDirectory(this.#split(name)[0]);
    return true;
  }

  async create(name: string): Promise<ShelfWriter> {
    const files = this.#files;
    const path = this.#path(name);
    const folder = this.#split(name)[0];
    const file = await files.open(path, 'create');
    let written = 0;
    let unsynced = 0;
    let open = true;
    // While this much is synced the next is written: what fails is told by the next sync, or at the end.
    let syncing: Promise<void> = Promise.resolve();
    const close = async (): Promise<void> => {
      if (!open) return;
      open = false;
      await syncing.catch(() => {});
      await file.close();
    };
    return {
      async write(bytes) {
        await file.writev([bytes], written);
        written += bytes.length;
        unsynced += bytes.length;
        if (unsynced < UNSYNCED_BYTES_MAX) return;
        await syncing;
        syncing = file.datasync();
        syncing.catch(() => {}); // awaited in its turn
        unsynced = 0;
      },
      async finish() {
        await syncing;
        await file.datasync();
        await close();
        // Its name is on the disk before its label is.
        await files.syncDirectory(folder);
      },
      async abandon() {
        await close().catch(() => {});
        await files.unlink(path).catch(() => {});
        await files.syncDirectory(folder).catch(() => {});
      },
    };
  }

  async *stream(name: string, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const file = await this.#files.open(this.#path(name), 'read');
    // While one piece is with the receiver the next is read into the other buffer.
    const read = async (buffer: Uint8Array, position: number): Promise<Uint8Array> =>
      buffer.subarray(0, await file.read(buffer, 0, buffer.length, position));
    let [spare, buffer] = [new Uint8Array(PIECE_BYTES_MAX), new Uint8Array(PIECE_BYTES_MAX)];
    let next = read(buffer, 0);
    try {
      for (let position = 0; ; position += PIECE_BYTES_MAX) {
        signal?.throwIfAborted();
        const piece = await next;
        [spare, buffer] = [buffer, spare];
        if (piece.length === PIECE_BYTES_MAX) next = read(buffer, position + PIECE_BYTES_MAX);
        next.catch(() => {}); // awaited in its turn
        if (piece.length > 0) yield piece;
        if (piece.length < PIECE_BYTES_MAX) return;
      }
    } finally {
      await next.catch(() => {});
      await file.close();
    }
  }

  async remove({ name }: Pick<ShelfEntry, 'name'>): Promise<void> {
    try {
      await this.#files.unlink(this.#path(name));
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'not-found') return;
      throw error;
    }
    await this.#files.syncDirectory(this.#split(name)[0]);
  }

  /** A file system has no such thing that the owner could not undo. */
  async hold(): Promise<void> {}

  async close(): Promise<void> {}

  #path(name: string): string {
    return `${this.#directory}/${name}`;
  }

  #split(name: string): [string, string] {
    const path = this.#path(name);
    const slash = path.lastIndexOf('/');
    return [path.slice(0, slash), path.slice(slash + 1)];
  }
}
