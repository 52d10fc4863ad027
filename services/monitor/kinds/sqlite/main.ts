// The program of the kind `sqlite`. Each database is copied with its journals and opened there: what a crash left half done
// is undone as it would be on the guest, and the mirror is not touched.
import { copyFileSync, constants, lstatSync, rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { filesWithin } from '../files-within.ts';
import { say } from '../tool.ts';
import type { SqliteTask } from './plan.ts';

const PROBLEMS_TOLD_MAX = 20;
const ROW_CHARACTERS_MAX = 500;
/** SQLITE_CORRUPT and SQLITE_NOTADB, without the detail in their upper bits: the file is not what it must be. */
const DAMAGED = [11, 26];
/** What this machine, or what reads the mirror, could not do: nothing about the database. */
const ELSEWHERE = [7, 10, 13];

type Said = 'good' | 'bad' | 'cannot-tell';

const task = JSON.parse(process.env['MIM_CHECK_SETTINGS'] ?? '') as SqliteTask;
const verdicts = task.paths.flatMap(checkPattern);
process.exitCode = verdicts.includes('bad') ? 1 : verdicts.includes('cannot-tell') ? 125 : 0;

function checkPattern(pattern: string): Said[] {
  const files = filesWithin(task.root, pattern);
  if (files.length === 0) {
    say(`${pattern}: no such file`);
    return [task.missing];
  }
  return files.map((file) => {
    try {
      return checkFile(file);
    } catch (error) {
      return told(file, error);
    }
  });
}

/** An error of SQLite's, or of the machine. */
function told(file: string, error: unknown): Said {
  const { errcode, message } = error as { errcode?: number; message: string };
  const damaged = errcode !== undefined && DAMAGED.includes(errcode & 0xff);
  say(`${file}: ${message}${damaged ? '' : ' (can not tell)'}`);
  return damaged ? 'bad' : 'cannot-tell';
}

function checkFile(file: string): Said {
  const copy = `${task.scratch}/database`;
  const parts = ['', '-wal', '-journal'];
  for (const part of parts)
    if (lstatSync(`${task.root}${file}${part}`, { throwIfNoEntry: false })?.isFile() === true)
      copyFileSync(`${task.root}${file}${part}`, `${copy}${part}`, constants.COPYFILE_FICLONE);
  const database = new DatabaseSync(copy, { enableForeignKeyConstraints: false });
  try {
    database.exec('PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0');
    const problems = [...integrity(database), ...foreignKeys(database)];
    const violated = assertions(database, file);
    for (const problem of problems.slice(0, PROBLEMS_TOLD_MAX)) say(`${file}: ${problem}`);
    if (problems.length > PROBLEMS_TOLD_MAX) say(`${file}: and ${problems.length - PROBLEMS_TOLD_MAX} more`);
    if (problems.length > 0 || violated === 'bad') return 'bad';
    if (violated === 'good') say(`${file}: sound`);
    return violated;
  } finally {
    database.close();
    for (const part of [...parts, '-shm']) rmSync(`${copy}${part}`, { force: true });
  }
}

function integrity(database: DatabaseSync): string[] {
  const rows = database.prepare('PRAGMA integrity_check').all() as { integrity_check: string }[];
  return rows.map(({ integrity_check: said }) => said).filter((said) => said !== 'ok');
}

function foreignKeys(database: DatabaseSync): string[] {
  if (!task.foreignKeys) return [];
  const rows = database.prepare('PRAGMA foreign_key_check').all();
  return rows.map(({ table, rowid, parent }) => `row ${rowid} of ${table} refers to no row of ${parent}`);
}

function assertions(database: DatabaseSync, file: string): Said {
  let said: Said = 'good';
  for (const { name, sql, database: only } of task.assertions) {
    if (only !== undefined && only !== file) continue;
    try {
      let rows = 0;
      const query = database.prepare(sql);
      query.setReadBigInts(true);
      for (const row of query.iterate()) {
        if (rows < PROBLEMS_TOLD_MAX) say(`${file}: ${name}: ${shown(row)}`);
        rows += 1;
      }
      if (rows > 0) {
        say(`${file}: ${name} is violated by ${rows} rows`);
        said = 'bad';
      }
    } catch (error) {
      const { errcode = 1 } = error as { errcode?: number };
      if (DAMAGED.includes(errcode & 0xff) || ELSEWHERE.includes(errcode & 0xff)) throw error;
      // The table is not there yet, or the query is wrong: that is not the data's fault.
      say(`${file}: ${name} can't be asked: ${(error as Error).message}`);
      if (said === 'good') said = 'cannot-tell';
    }
  }
  return said;
}

function shown(row: Record<string, unknown>): string {
  const text = JSON.stringify(row, (_, value: unknown) =>
    typeof value === 'bigint' ? String(value) : value,
  );
  return text.length > ROW_CHARACTERS_MAX ? `${text.slice(0, ROW_CHARACTERS_MAX)}…` : text;
}
