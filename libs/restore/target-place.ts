// What a target's name means, where its record is kept, and the lock that keeps two restores off one target.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { parseNbdUri } from '@midmirror/nbd';
import { type DataLock, lockJob } from '@midmirror/runtime';
import { type FileFound, lookAtFile } from './edges/file-target.ts';

export type TargetPlace =
  | { kind: 'absent'; name: string; recordPath: string }
  | { kind: 'file'; name: string; recordPath: string; sizeBytes: number; identity: string }
  | { kind: 'device'; name: string; recordPath: string; sizeBytes: number }
  | { kind: 'nbd'; name: string; recordPath: string };

/** Files have their record beside them, all others in `stateDirectory`. Throws MidmirrorError. */
export async function targetPlace(name: string, stateDirectory: string): Promise<TargetPlace> {
  if (/^[a-z+]+:\/\//.test(name)) {
    parseNbdUri(name);
    return { kind: 'nbd', name, recordPath: recordPath(stateDirectory, name) };
  }
  const path = resolve(name);
  const found: FileFound = await lookAtFile(path);
  if (found.kind === 'absent') {
    if (path.startsWith('/dev/'))
      throw new MidmirrorError('bad-request', `there is no device ${path}`, {
        hint: '`lsblk` shows those there are',
      });
    const real = `${realpathSync(dirname(path))}/${basename(path)}`;
    return { kind: 'absent', name: path, recordPath: `${real}.mim-restore` };
  }
  const { kind, sizeBytes } = found;
  // By the name it stands for: /dev/disk/by-id/… and /dev/sdb are one.
  if (kind === 'device')
    return { kind, name: path, sizeBytes, recordPath: recordPath(stateDirectory, found.path) };
  const { identity } = found;
  return { kind, name: path, sizeBytes, identity, recordPath: `${found.path}.mim-restore` };
}

/** In the state directory, which is made if it is missing. */
export function recordPath(stateDirectory: string, key: string): string {
  makeState(stateDirectory);
  return `${stateDirectory}/${hashOf(key)}.mim-restore`;
}

/** One restore at a time writes to a target. Throws `locked`, naming the process that does. */
export function lockTarget(stateDirectory: string, place: { name: string; recordPath: string }): DataLock {
  makeState(stateDirectory);
  const job = hashOf(place.recordPath);
  try {
    return lockJob(stateDirectory, job);
  } catch (cause) {
    throw new MidmirrorError(
      'locked',
      `${place.name} is being restored already${ownerOf(stateDirectory, job)}`,
      {
        hint: 'wait for it, or end it first',
        cause,
      },
    );
  }
}

function ownerOf(stateDirectory: string, job: string): string {
  try {
    return ` by process ${readFileSync(`${stateDirectory}/${job}.lock.owner`, 'utf8').trim()}`;
  } catch {
    return '';
  }
}

function hashOf(key: string): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 32);
}

function makeState(stateDirectory: string): void {
  try {
    mkdirSync(stateDirectory, { recursive: true });
  } catch (cause) {
    throw new MidmirrorError('bad-request', `${stateDirectory} can't be made: ${messageOf(cause)}`, {
      hint: 'records of restores are kept there; set MIM_RESTORE_DIR to a folder that can be written',
      cause,
    });
  }
}
