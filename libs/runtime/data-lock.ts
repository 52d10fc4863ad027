// One process per data directory: an exclusive lock that the operating system drops with the process, however it
// ends. SQLite holds it for us (Node has no flock).
import { readFileSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { MidmirrorError } from '@midmirror/basis';

export interface DataLock {
  release(): void;
}

/** Throws `locked`, naming the process that has it. `directory` exists. */
export function lockDirectory(directory: string): DataLock {
  const path = `${directory}/lock`;
  const database = new DatabaseSync(path);
  try {
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
  } catch (cause) {
    database.close();
    throw new MidmirrorError('locked', `the data directory ${directory} is in use${ownerOf(path)}`, {
      hint: 'one appliance at a time; stop the other one, or give this one another MIM_DATA_DIR',
      cause,
    });
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
