// Who may use a data directory. Locks are held by the operating system and go with the process, however it ends: a
// transaction of SQLite on a file holds them for us (Node has no flock).
import { readFileSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { MidmirrorError } from '@midmirror/basis';

export interface DataLock {
  release(): void;
}

/** For one process alone. Throws `locked`, naming the process that has it. `directory` exists. */
export function lockDirectory(directory: string): DataLock {
  return lock(`${directory}/lock`, 'alone', (owner) => ({
    message: `the data directory ${directory} is in use${owner}`,
    hint: 'one appliance at a time; stop the other one, or give this one another MIM_DATA_DIR',
  }));
}

/** For one of several processes that share it. Throws `locked` when one process has it for itself. */
export function shareDirectory(directory: string): DataLock {
  return lock(`${directory}/lock`, 'shared', (owner) => ({
    message: `the data directory ${directory} is in use${owner}, for itself`,
    hint: 'stop `npm start` on it before services of their own use it',
  }));
}

/**
 * For the one process that does a job on a pool, also while it is stopped: as long as it lives nobody else begins.
 * Throws `locked`, naming the process that has it.
 */
export function lockJob(directory: string, job: string): DataLock {
  return lock(`${directory}/${job}.lock`, 'alone', (owner) => ({
    message: `a ${job} works on ${directory} already${owner}`,
    hint: 'there is one for a pool; end the other one',
  }));
}

function lock(
  path: string,
  how: 'alone' | 'shared',
  refused: (owner: string) => { message: string; hint: string },
): DataLock {
  const database = new DatabaseSync(path);
  try {
    database.exec('PRAGMA journal_mode = MEMORY');
    database.exec(how === 'alone' ? 'BEGIN EXCLUSIVE' : 'BEGIN; SELECT count(*) FROM sqlite_master');
  } catch (cause) {
    database.close();
    const { message, hint } = refused(ownerOf(path));
    throw new MidmirrorError('locked', message, { hint, cause });
  }
  writeFileSync(`${path}.owner`, `${process.pid}\n`);
  return { release: () => database.close() };
}

function ownerOf(path: string): string {
  try {
    return ` by process ${readFileSync(`${path}.owner`, 'utf8').trim()}`;
  } catch {
    return ''; // it has the lock and has not written its number yet
  }
}
