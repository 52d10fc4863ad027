// How a check reaches a moment: a mirror or a clone of it through a doorway of its own, mounted where the check wants files.
// Everything is undone when it ends, however that goes.
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { ask } from '@midmirror/bus';
import { type MirrorFiles, openMirror, thisMachine, undoStale } from '@midmirror/mirror-files';
import type { MonitorContext } from './context.ts';
import type { ByteRange } from './core/read-set.ts';
import type { CheckInput, Need } from './kinds/kind.ts';
import { type Doorway, openDoorway } from './runner/doorway.ts';

const CLONE = /^check-[0-9a-f]{12}$/;

export interface Reached {
  input: Omit<CheckInput, 'moment'>;
  /** What has been read. */
  readonly read: readonly ByteRange[];
  /** Why a verdict would stand on nothing; null: all reads went well. */
  readonly failure: string | null;
  close(): Promise<void>;
}

/** `folder`: for the doorway's socket. Rejects with MidmirrorError; nothing is left then. */
export async function reach(
  context: MonitorContext,
  volume: { id: string; name: string },
  seq: number,
  need: Need,
  folder: string,
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
    const name = writable ? await makeClone(context, volume.id, seq, undo) : `${volume.name}@seq:${seq}`;
    const doorway: Doorway = await openDoorway({ uri: context.exportUri(name), folder, writable });
    undo.push(() => doorway.close());
    const facts = {
      get read() {
        return doorway.read;
      },
      get failure() {
        return doorway.failure;
      },
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

/** Clones that a process that was killed has left. */
export async function removeClones({ catalog, bus, log }: MonitorContext): Promise<void> {
  const clones = await catalog.db.selectFrom('clone').select('name').execute();
  for (const { name } of clones.filter((clone) => CLONE.test(clone.name))) {
    await ask(bus, 'mapping-index.delete-clone', { name });
    log(`clone ${name} of a check that was cut off is removed`);
  }
}

async function makeClone(
  { bus }: MonitorContext,
  volumeId: string,
  seq: number,
  undo: (() => Promise<unknown>)[],
): Promise<string> {
  const name = `check-${randomBytes(6).toString('hex')}`;
  await ask(bus, 'mapping-index.create-clone', { volumeId, at: `seq:${seq}`, name });
  undo.push(() => ask(bus, 'mapping-index.delete-clone', { name }));
  return name;
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
