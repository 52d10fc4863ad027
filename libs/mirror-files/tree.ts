// The files of a file system of a mirror, above whichever way reaches them: paths, symbolic links, ranges.
import { MidmirrorError } from '@midmirror/basis';
import { copyTree } from './copy-tree.ts';
import type { FileSystem } from './layout/layout.ts';
import type { Copied, CopyOptions, Entry, FileTree, ReadRange, Way } from './mirror-files.ts';
import { followLinks, type Path, parsePath, printPath } from './paths.ts';
import type { RawTree } from './ways/raw-tree.ts';

export class Tree implements FileTree {
  readonly fileSystem: FileSystem;
  readonly way: Way;
  readonly passedOver: readonly { way: Way; why: string }[];
  readonly #raw: RawTree;
  readonly #lost: AbortSignal;

  constructor(
    raw: RawTree,
    lost: AbortSignal,
    facts: { fileSystem: FileSystem; way: Way; passedOver: readonly { way: Way; why: string }[] },
  ) {
    this.#raw = raw;
    this.#lost = lost;
    this.fileSystem = facts.fileSystem;
    this.way = facts.way;
    this.passedOver = facts.passedOver;
  }

  get directory(): string | null {
    return this.#raw.directory;
  }

  async *list(path: string): AsyncGenerator<Entry> {
    const found = await this.#find(path, true);
    if (found.entry.kind !== 'directory')
      throw new MidmirrorError('bad-request', `${printPath(parsePath(path))} is no folder`, {
        hint: 'ask for the folder that it is in',
      });
    yield* this.#raw.list(found.path);
  }

  async stat(path: string, { follow = true } = {}): Promise<Entry> {
    return (await this.#find(path, follow)).entry;
  }

  async readLink(path: string): Promise<string> {
    const found = await this.#find(path, false);
    if (found.entry.kind !== 'symlink')
      throw new MidmirrorError('bad-request', `${printPath(found.path)} is no symbolic link`);
    return await this.#raw.readLink(found.path);
  }

  async *read(
    path: string,
    { offset = 0, length = Number.MAX_SAFE_INTEGER }: ReadRange = {},
  ): AsyncGenerator<Buffer> {
    for (const [name, value] of Object.entries({ offset, length }))
      if (!Number.isSafeInteger(value) || value < 0)
        throw new MidmirrorError('bad-request', `${name} ${value} is not a number of bytes`);
    const { path: real, entry } = await this.#find(path, true);
    if (entry.kind === 'directory')
      throw new MidmirrorError('bad-request', `${printPath(real)} is a folder`, {
        hint: 'list it, or copy it',
      });
    if (entry.kind !== 'file')
      throw new MidmirrorError(
        'bad-request',
        `${printPath(real)} is a device, a pipe or a socket, and has no bytes`,
      );
    const left = Math.min(length, entry.sizeBytes - offset);
    if (left > 0) yield* this.#raw.read(real, entry, { offset, length: left });
  }

  async copy(path: string, target: string, options: CopyOptions): Promise<Copied> {
    const { path: real, entry } = await this.#find(path, true);
    const signals = options.signal === undefined ? [this.#lost] : [this.#lost, options.signal];
    return await copyTree(this.#raw, real, entry, target, { ...options, signal: AbortSignal.any(signals) });
  }

  async #find(path: string, follow: boolean): Promise<{ path: Path; entry: Entry }> {
    if (this.#lost.aborted)
      throw new MidmirrorError('unavailable', 'the server of the mirror is gone', {
        cause: this.#lost.reason,
      });
    return await followLinks(this.#raw, parsePath(path), follow);
  }
}
