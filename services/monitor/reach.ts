// How a check reaches a moment: the mirror through a doorway of its own; where the check wants files, mounted, or copied out
// where nothing can be mounted. What is written stays at the doorway.
// Everything is undone when it ends, however that goes.
import { dirname } from 'node:path';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type FileTree, type MirrorFiles, openMirror, thisMachine, undoStale } from '@midmirror/mirror-files';
import type { ReadPace } from '@midmirror/nbd';
import type { MonitorContext } from './context.ts';
import type { ByteRange } from './core/read-set.ts';
import { copiedFilesPath, type CopiedFiles, copyFiles } from './copied-files.ts';
import type { CheckInput, Need, WantedFiles } from './kinds/kind.ts';
import { type CheckLimits, runnerLimits } from './limits.ts';
import { type Doorway, openDoorway } from './runner/doorway.ts';

export interface Reached {
  input: Omit<CheckInput, 'moment'>;
  /** Where nothing could be mounted. */
  copied?: CopiedFiles;
  /** What has been read. */
  readonly read: readonly ByteRange[];
  /** Why a verdict would stand on nothing; null: all reads went well. */
  readonly failure: string | null;
  /** Aborted once the appliance is gone. */
  readonly lost: AbortSignal;
  close(): Promise<void>;
}

/** Of a check that wants files. */
export interface FilesWish {
  wanted: WantedFiles | null;
  /** Of the check that gets this. */
  limitsFor(input: Reached['input']): CheckLimits;
  signal: AbortSignal;
}

export interface Way {
  need: Exclude<Need, 'writes'>;
  /** The check's own: for the doorway's socket, and for copies. */
  folder: string;
  /** Of all that is read for checks. */
  pace: ReadPace;
  files: FilesWish;
}

/** Rejects with MidmirrorError; nothing is left then. */
export async function reach(
  context: MonitorContext,
  volume: { name: string },
  seq: number,
  { need, folder, pace, files: { wanted, limitsFor, signal } }: Way,
): Promise<Reached> {
  const writable = need === 'writable-disk' || need === 'writable-files';
  const wantsFiles = need === 'files' || need === 'writable-files';
  const undo: (() => Promise<unknown>)[] = [];
  // What can't be undone keeps nothing else from it.
  const close = async (): Promise<void> => {
    const failures: unknown[] = [];
    for (let act = undo.pop(); act !== undefined; act = undo.pop())
      await act().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  };
  try {
    const uri = context.exportUri(`${volume.name}@seq:${seq}`);
    const doorway: Doorway = await openDoorway({ uri, folder, writable: writable || wantsFiles, pace });
    undo.push(() => doorway.close());
    const facts = {
      get read() {
        return doorway.read;
      },
      get failure() {
        return doorway.failure;
      },
      lost: doorway.lost,
      close,
    };
    if (!wantsFiles) return Object.assign(facts, { input: { mirror: { uri: doorway.uri, writable } } });
    // As after a power loss: what was only in a journal is a part of the moment. That is written at the doorway.
    const limits = limitsFor({ files: { path: folder, writable } });
    const late = new AbortController();
    const timer = setTimeout(
      () =>
        late.abort(new MidmirrorError('io', `its files are not reached after ${limits.timeMsMax / 1000} s`)),
      limits.timeMsMax,
    );
    undo.push(async () => clearTimeout(timer));
    const mirror = await openMirror(doorway.uri, {
      ...{ stateDirectory: mountsOf(context), replay: true, write: writable },
      ...{ openToUsers: true, tell: context.log, spareBytesMin: runnerLimits.scratchFreeBytesMin },
      signal: AbortSignal.any([signal, late.signal]),
    });
    undo.push(() => mirror.close());
    const trees = await treesOf(mirror).catch((error: unknown) => {
      throw late.signal.aborted ? late.signal.reason : error;
    });
    clearTimeout(timer);
    const directories = trees.map(({ directory }) => directory).filter((each) => each !== null);
    if (directories.length === trees.length) {
      const path = directories.length === 1 ? directories[0]! : dirname(directories[0]!);
      return Object.assign(facts, { input: { files: { path, writable } } });
    }
    const input = { files: { path: copiedFilesPath(mirror, folder), writable } };
    const copied = await copyFiles(trees, folder, { wanted, limits, signal });
    return Object.assign(facts, { input, copied });
  } catch (error) {
    await close().catch((left: unknown) => context.log(`what a check has used is left: ${messageOf(left)}`));
    throw error;
  }
}

/** Mounts and what serves them, of a process that was killed. */
export async function undoMounts(context: MonitorContext): Promise<void> {
  await undoStale(mountsOf(context), thisMachine(), context.log);
}

function mountsOf({ stateDirectory }: MonitorContext): string {
  return `${stateDirectory}/mounts`;
}

async function treesOf(mirror: MirrorFiles): Promise<FileTree[]> {
  if (mirror.fileSystems.length === 0)
    throw new MidmirrorError('not-found', 'there is no file system on the disk at this point');
  const trees: FileTree[] = [];
  for (const { number } of mirror.fileSystems)
    trees.push(
      await mirror.tree(number).catch((error: unknown) => {
        if (!(error instanceof MidmirrorError) || error.hint === undefined) throw error;
        // On one line: it is the reason of a verdict.
        const hint = error.hint.replaceAll(/\n\s*/g, '; ').replace(':;', ':');
        throw new MidmirrorError(
          error.code,
          `${error.message}, ${hint}${process.getuid?.() === 0 ? '' : '; run the monitor as root'}`,
          { cause: error },
        );
      }),
    );
  return trees;
}
