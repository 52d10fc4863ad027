// How a check reaches a moment: the mirror through a doorway of its own, mounted where the check wants files. What it writes
// stays at the doorway.
// Everything is undone when it ends, however that goes.
import { dirname } from 'node:path';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type MirrorFiles, openMirror, thisMachine, undoStale } from '@midmirror/mirror-files';
import type { ReadPace } from '@midmirror/nbd';
import type { MonitorContext } from './context.ts';
import type { ByteRange } from './core/read-set.ts';
import type { CheckInput, Need } from './kinds/kind.ts';
import { type Doorway, openDoorway } from './runner/doorway.ts';

export interface Reached {
  input: Omit<CheckInput, 'moment'>;
  /** What has been read. */
  readonly read: readonly ByteRange[];
  /** Why a verdict would stand on nothing; null: all reads went well. */
  readonly failure: string | null;
  /** Aborted once the appliance is gone. */
  readonly lost: AbortSignal;
  close(): Promise<void>;
}

export interface Way {
  need: Exclude<Need, 'writes'>;
  /** For the doorway's socket. */
  folder: string;
  /** Of all that is read for checks. */
  pace: ReadPace;
}

/** Rejects with MidmirrorError; nothing is left then. */
export async function reach(
  context: MonitorContext,
  volume: { name: string },
  seq: number,
  { need, folder, pace }: Way,
): Promise<Reached> {
  const writable = need === 'writable-disk' || need === 'writable-files';
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
    const doorway: Doorway = await openDoorway({ uri, folder, writable, pace });
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
    if (need === 'disk' || need === 'writable-disk')
      return Object.assign(facts, { input: { mirror: { uri: doorway.uri, writable } } });
    const mirror = await openMirror(doorway.uri, {
      ...{ stateDirectory: mountsOf(context), write: writable, openToUsers: true, tell: context.log },
    });
    undo.push(() => mirror.close());
    return Object.assign(facts, { input: { files: { path: await mountedFiles(mirror), writable } } });
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

/** The only file system's, or the folder with one for each. */
async function mountedFiles(mirror: MirrorFiles): Promise<string> {
  if (mirror.fileSystems.length === 0)
    throw new MidmirrorError('not-found', 'there is no file system on the disk at this point');
  const directories: string[] = [];
  for (const { number } of mirror.fileSystems) {
    const tree = await mirror.tree(number);
    if (tree.directory === null)
      throw new MidmirrorError(
        'io',
        `a ${tree.fileSystem.kind} of the disk can't be mounted on the monitor's machine: ${tree.passedOver.map(({ way, why }) => `${way}: ${why}`).join('; ')}`,
      );
    directories.push(tree.directory);
  }
  return directories.length === 1 ? directories[0]! : dirname(directories[0]!);
}
