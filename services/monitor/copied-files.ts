// Files of a moment where nothing can be mounted: read by programs of this user (debugfs, 7z) and copied to the check's own
// directory, as far as the check looks at them, within its limits. No link is followed; what could lead out of the copy, or is
// no file, is left out and counted.
import { mkdir, statfs } from 'node:fs/promises';
import { MidmirrorError, printBytes } from '@midmirror/basis';
import { type EntryKind, type FileTree, type MirrorFiles, printName } from '@midmirror/mirror-files';
import type { WantedFiles } from './kinds/kind.ts';
import { pathPattern } from './kinds/path-pattern.ts';
import type { CheckLimits } from './limits.ts';

export interface CopyWish {
  /** Null: all files. */
  wanted: WantedFiles | null;
  limits: Pick<CheckLimits, 'scratchBytesMax' | 'scratchFilesMax' | 'timeMsMax'>;
  signal: AbortSignal;
}

export interface CopiedFiles {
  /** The folder with all of them. */
  path: string;
  bytes: number;
  files: number;
  /** How they were read, and what was left out: for the verdict's output. */
  said: string;
}

/** Of what is free where checks run: the appliance's own data may lie there. */
const SHARE_OF_FREE = 0.5;

/** Where the files are to be, before they are. */
export function copiedFilesPath(mirror: MirrorFiles, scratch: string): string {
  const folder = `${scratch}/files`;
  return mirror.fileSystems.length === 1 ? `${folder}/${nameOf(mirror.fileSystems[0]!.number)}` : folder;
}

/** Rejects with MidmirrorError: a limit, named; what can't be read; the signal's reason. */
export async function copyFiles(
  trees: readonly FileTree[],
  scratch: string,
  { wanted, limits, signal }: CopyWish,
): Promise<CopiedFiles> {
  const folder = `${scratch}/files`;
  await mkdir(folder, { mode: 0o700 });
  const { bavail, bsize } = await statfs(folder);
  const bytesMax = Math.min(limits.scratchBytesMax, Math.floor(bavail * bsize * SHARE_OF_FREE));
  const inTime = AbortSignal.timeout(limits.timeMsMax);
  const stop = AbortSignal.any([signal, inTime]);
  const all = { bytes: 0, files: 0, links: 0, special: 0 };
  const files = (wanted?.files ?? ['/**']).map(pathPattern);
  const links = (wanted?.links ?? []).map(pathPattern);
  for (const tree of trees) {
    const wants = (path: readonly string[], kind: EntryKind): boolean => {
      // A damaged one may be a folder.
      const mayHold = kind === 'directory' || kind === 'damaged';
      if (!files.some((each) => each.matches(path) || (mayHold && each.mayMatchIn(path)))) return false;
      if (kind !== 'symlink' || links.some((each) => each.matches(path))) return true;
      all.links += 1;
      return false;
    };
    const room = { bytesMax: bytesMax - all.bytes, filesMax: limits.scratchFilesMax - all.files };
    const options = { owners: false, ownModes: true, wants, signal: stop, ...room };
    const target = `${folder}/${nameOf(tree.fileSystem.number)}`;
    const copied = await tree.copy('/', target, options).catch((error: unknown) => {
      if (inTime.aborted && !signal.aborted)
        throw cannot(`its files are not copied after ${limits.timeMsMax / 1000} s`);
      if (error instanceof MidmirrorError && error.code === 'no-space')
        throw cannot(
          bytesMax < limits.scratchBytesMax
            ? `${error.message}, and more of what is free at ${scratch} is not taken (${printBytes(bytesMax)})`
            : error.message,
        );
      throw error;
    });
    if (copied.failed > 0) throw damaged(copied.failed, copied.reasons);
    all.bytes += copied.bytes;
    all.files += copied.files + copied.directories + copied.symlinks;
    all.special += copied.skipped;
  }
  const ways = [...new Set(trees.map(({ way }) => way))].join(' and ');
  const leftOut = [...countOf(all.links, 'symbolic link'), ...countOf(all.special, 'device, pipe or socket')];
  return {
    path: folder,
    bytes: all.bytes,
    files: all.files,
    said: `${all.files} files and folders, ${printBytes(all.bytes)}, were copied out by ${ways}, as nothing is mounted here${leftOut.length === 0 ? '' : `; left out: ${leftOut.join(', ')}`}`,
  };
}

/** As mounted ones are called. */
function nameOf(fileSystem: number): string {
  return `files-${fileSystem}`;
}

function cannot(why: string): MidmirrorError {
  return new MidmirrorError(
    'io',
    `nothing can be mounted here, and ${why}; run the monitor as root, or let the check look at less`,
  );
}

function damaged(count: number, reasons: readonly { path: string; why: string }[]): MidmirrorError {
  const first = reasons[0];
  const told = first === undefined ? '' : `, the first: ${printName(first.path)}: ${printName(first.why)}`;
  return new MidmirrorError('corrupt', `${count} of its files can't be read${told}`);
}

function countOf(count: number, what: string): string[] {
  return count === 0 ? [] : [`${count} ${what}${count === 1 ? '' : 's'}`];
}
