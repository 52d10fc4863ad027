// Where the maps of a host's replicators lie: a folder for each primary, which one replicator at a time has to itself,
// and in it one for each target. Only the map of the target in use is of any worth: with the others' nobody knows what
// was written meanwhile.
import { createHash } from 'node:crypto';
import { MidmirrorError } from '@midmirror/basis';
import { exportUri, type NbdTarget, serverUri } from '@midmirror/nbd';
import type { PoolFiles } from '@midmirror/pool';
import { type DataLock, lockDirectory } from '@midmirror/runtime';

export const INTENT_NAME = 'intent.map';

export interface StateDirectory {
  /** Of this primary and target. */
  path: string;
  targetUri: string;
  lock: DataLock;
}

/** Rejects with `locked` when another replicator has the primary. */
export async function openStateDirectory(
  files: PoolFiles,
  root: string,
  primaryPath: string,
  target: NbdTarget,
): Promise<StateDirectory> {
  const targetUri = exportUri(serverUri(target.address), target.exportName);
  const ofPrimary = folderOf(root, primaryPath);
  const name = folderName(targetUri);
  try {
    await files.makeDirectory(`${ofPrimary}/${name}`);
  } catch (cause) {
    throw new MidmirrorError('io', `the replicator can't keep its state in ${root}`, {
      hint: 'it needs a folder of its own that survives a restart of the host; name one with MIM_REPLICATOR_DIR',
      cause,
    });
  }
  const lock = lockPrimary(ofPrimary, primaryPath);
  try {
    for (const other of await files.list(ofPrimary)) {
      const map = `${ofPrimary}/${other}/${INTENT_NAME}`;
      if (other === name || !(await files.exists(map))) continue;
      await files.unlink(map);
      await files.syncDirectory(`${ofPrimary}/${other}`);
    }
  } catch (error) {
    lock.release();
    throw error;
  }
  return { path: `${ofPrimary}/${name}`, targetUri, lock };
}

/** Throws `locked` when a replicator has the primary. */
export function lockPrimary(directory: string, primaryPath: string): DataLock {
  try {
    return lockDirectory(directory);
  } catch (cause) {
    if (!(cause instanceof MidmirrorError)) throw cause;
    const owner = / by process \d+/.exec(cause.message)?.[0] ?? '';
    throw new MidmirrorError('locked', `the primary ${primaryPath} is replicated already${owner}`, {
      hint: 'a primary has one replicator; stop the other one first',
      cause,
    });
  }
}

/** Of a primary, whose path has no symbolic links. */
export function folderOf(root: string, primaryPath: string): string {
  return `${root}/${folderName(primaryPath)}`;
}

/** Readable, and never the same for two. */
function folderName(text: string): string {
  const readable = text
    .replaceAll(/[^A-Za-z0-9.-]+/g, '-')
    .replaceAll(/^[-.]+|-+$/g, '')
    .slice(-60);
  return `${readable}-${createHash('sha256').update(text).digest('hex').slice(0, 16)}`;
}
