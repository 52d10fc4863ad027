// Copies files of a mirror to this machine. Nothing is ever written through a name that was there before: what the
// mirror says of a folder may be forged (a link and a folder of one name), so each name is made anew or is an error.
import { promises as fs } from 'node:fs';
import { isZero, MidmirrorError, messageOf, printBytes } from '@midmirror/basis';
import { limits } from './limits.ts';
import type { Copied, CopyOptions, Entry } from './mirror-files.ts';
import { encodeName } from './names.ts';
import { type Path, printPath } from './paths.ts';
import type { RawTree } from './ways/raw-tree.ts';

const HOLE_BYTES = 64 << 10;
/** Read, write, run; nothing of set-id. The sticky bit is harmless. */
const MODE_KEPT = 0o1777;

export async function copyTree(
  tree: RawTree,
  path: Path,
  entry: Entry,
  target: string,
  options: CopyOptions,
): Promise<Copied> {
  const copy = new Copy(tree, options);
  await copy.one(path, entry, Buffer.from(target), 0);
  return copy.copied;
}

class Copy {
  readonly copied: Copied = {
    files: 0,
    directories: 0,
    symlinks: 0,
    bytes: 0,
    skipped: 0,
    failed: 0,
    reasons: [],
  };
  readonly #tree: RawTree;
  readonly #options: CopyOptions;
  /** Of what was begun. */
  readonly #taken = { bytes: 0, files: 0 };

  constructor(tree: RawTree, options: CopyOptions) {
    this.#tree = tree;
    this.#options = options;
  }

  async one(path: Path, entry: Entry, target: Buffer, depth: number): Promise<void> {
    this.#unlessStopped();
    if (this.#options.wants?.(path, entry.kind) === false) return;
    try {
      if (entry.kind === 'directory') await this.#directory(path, entry, target, depth);
      else if (entry.kind === 'file') await this.#file(path, entry, target);
      else if (entry.kind === 'symlink') await this.#symlink(path, entry, target);
      else if (entry.kind === 'damaged') this.#leaveOut('failed', path, 'it is damaged at this point');
      else this.#leaveOut('skipped', path, 'a device, a pipe or a socket');
    } catch (error) {
      // What can't be read is damaged in the mirror; the rest may be whole. What can't be written ends it.
      this.#unlessStopped();
      if (depth === 0) throw error instanceof WriteError ? error.cause : error;
      if (error instanceof WriteError) throw error;
      this.#leaveOut('failed', path, messageOf(error));
    }
    this.#options.report?.(this.copied);
  }

  async #directory(path: Path, entry: Entry, target: Buffer, depth: number): Promise<void> {
    if (depth === limits.depthMax)
      throw new MidmirrorError('corrupt', `${printPath(path)} is deeper than ${limits.depthMax} folders`);
    this.#take(path, 0);
    // Ours alone until all is in it.
    await this.#write(path, target, () => fs.mkdir(target, { mode: 0o700 }));
    this.copied.directories += 1;
    try {
      for await (const child of this.#tree.list(path))
        await this.one(
          [...path, child.name],
          child,
          Buffer.concat([target, Buffer.from('/'), encodeName(child.name)]),
          depth + 1,
        );
    } catch (error) {
      // The rest of a folder that is damaged; what was copied of it stays.
      this.#unlessStopped();
      if (!(error instanceof MidmirrorError) || error.code !== 'corrupt') throw error;
      this.#leaveOut('failed', path, messageOf(error));
    }
    await this.#write(path, target, async () => {
      await this.#setOwner(entry, (user, group) => fs.lchown(target, user, group));
      const mode = entry.mode === null ? 0o755 : entry.mode & MODE_KEPT;
      if (!this.#options.ownModes) await fs.chmod(target, mode);
      if (entry.modifiedMs !== null)
        await fs.utimes(target, entry.modifiedMs / 1000, entry.modifiedMs / 1000);
    });
  }

  async #file(path: Path, entry: Entry, target: Buffer): Promise<void> {
    this.#take(path, entry.sizeBytes);
    const file = await this.#write(path, target, () => fs.open(target, 'wx', 0o600));
    let at = 0;
    let whole = false;
    try {
      for await (const part of this.#tree.read(path, entry, { offset: 0, length: entry.sizeBytes })) {
        await this.#write(path, target, async () => {
          for (let from = 0; from < part.length; from += HOLE_BYTES) {
            const piece = part.subarray(from, from + HOLE_BYTES);
            for (let done = 0; !isZero(piece) && done < piece.length; )
              done += (await file.write(piece, done, piece.length - done, at + from + done)).bytesWritten;
          }
        });
        at += part.length;
        this.#unlessStopped();
      }
      await this.#write(path, target, async () => {
        await file.truncate(at);
        await this.#setOwner(entry, (user, group) => file.chown(user, group));
        if (!this.#options.ownModes) await file.chmod(entry.mode === null ? 0o644 : entry.mode & MODE_KEPT);
        if (entry.modifiedMs !== null) await file.utimes(entry.modifiedMs / 1000, entry.modifiedMs / 1000);
      });
      whole = true;
    } finally {
      await file.close();
      // Half a file must not be taken for the file.
      if (!whole) await fs.rm(target, { force: true });
    }
    this.copied.files += 1;
    this.copied.bytes += at;
  }

  async #symlink(path: Path, entry: Entry, target: Buffer): Promise<void> {
    this.#take(path, 0);
    const names = encodeName(await this.#tree.readLink(path));
    await this.#write(path, target, () => fs.symlink(names, target));
    await this.#write(path, target, async () => {
      await this.#setOwner(entry, (user, group) => fs.lchown(target, user, group));
      if (entry.modifiedMs !== null)
        await fs.lutimes(target, entry.modifiedMs / 1000, entry.modifiedMs / 1000);
    });
    this.copied.symlinks += 1;
  }

  /** Before it is read: what a disk says of a file's size costs it nothing. */
  #take(path: Path, bytes: number): void {
    const { bytesMax = Number.POSITIVE_INFINITY, filesMax = Number.POSITIVE_INFINITY } = this.#options;
    this.#taken.bytes += bytes;
    this.#taken.files += 1;
    const over =
      this.#taken.bytes > bytesMax
        ? printBytes(bytesMax)
        : this.#taken.files > filesMax
          ? `${filesMax} files`
          : null;
    if (over === null) return;
    const message = `there is more than ${over} to be copied: ${printPath(path)} is not any more`;
    throw new WriteError(message, { cause: new MidmirrorError('no-space', message) });
  }

  #unlessStopped(): void {
    const { signal } = this.#options;
    if (signal?.aborted === true) throw stopped(signal);
  }

  async #setOwner({ owner }: Entry, set: (user: number, group: number) => Promise<void>): Promise<void> {
    if (this.#options.owners && owner !== null) await set(owner.user, owner.group);
  }

  async #write<T>(path: Path, target: Buffer, act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      throw writeError(path, target, cause);
    }
  }

  #leaveOut(how: 'skipped' | 'failed', path: Path, why: string): void {
    this.copied[how] += 1;
    if (this.copied.reasons.length < limits.copyReasonsMax)
      this.copied.reasons.push({ path: `/${path.join('/')}`, why });
  }
}

/** Of this machine, not of the mirror: nothing more can be copied. */
class WriteError extends Error {}

/** A name that the target's file system does not take concerns one file only, as does one that is there twice. */
function writeError(path: Path, target: Buffer, cause: unknown): Error {
  const code = (cause as NodeJS.ErrnoException).code ?? '';
  if (code === 'EEXIST') {
    return new MidmirrorError('conflict', `${target.toString()} exists already`, {
      hint: 'nothing is written over: name a target that does not exist',
    });
  }
  if (['ENAMETOOLONG', 'EILSEQ', 'EINVAL', 'ELOOP'].includes(code))
    return new MidmirrorError('io', `${printPath(path)} can't be written under this name: ${code}`);
  const full = code === 'ENOSPC' || code === 'EDQUOT';
  const message = full
    ? `no space is left for ${printPath(path)}`
    : `${target.toString()} can't be written: ${messageOf(cause)}`;
  return new WriteError(message, { cause: new MidmirrorError(full ? 'no-space' : 'io', message, { cause }) });
}

function stopped(signal: AbortSignal): MidmirrorError {
  if (signal.reason instanceof MidmirrorError) return signal.reason;
  return new MidmirrorError('unavailable', 'the copy was stopped in the middle', { cause: signal.reason });
}
