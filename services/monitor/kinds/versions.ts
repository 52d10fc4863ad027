// What programs and files a verdict goes by, as text that changes when they do: a new one makes earlier verdicts void.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { MidmirrorError } from '@midmirror/basis';
import { runnerLimits } from '../limits.ts';

export const ABSENT = 'absent';

const told = new Map<string, { said: Promise<string>; atMs: number }>();

/**
 * What a program says of its version, or has said a moment ago; `ABSENT` when it is not there. Rejects with `unavailable`
 * when it did not come to its end: as another version that would make all verdicts void.
 */
export function versionOf(program: string, args: readonly string[]): Promise<string> {
  const key = [program, ...args].join(' ');
  const before = told.get(key);
  if (before !== undefined && performance.now() - before.atMs < runnerLimits.versionAgeMsMax)
    return before.said;
  const said = askVersion(program, args);
  told.set(key, { said, atMs: performance.now() });
  said.catch(() => told.delete(key)); // who asked hears of it
  return said;
}

function askVersion(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: runnerLimits.probeMsMax }, (error, said, complaint) => {
      const text = `${said}${complaint}`.trim().split('\n')[0] ?? '';
      const code = error?.code;
      if (code === 'ENOENT' || code === 'EACCES') resolve(ABSENT);
      else if (error?.signal == null && typeof code !== 'string') resolve(text);
      else reject(new MidmirrorError('unavailable', `${program} did not say its version: ${error!.message}`));
    });
  });
}

/** Names, sizes and times of a file, or of a folder's files: signatures are hundreds of megabytes. */
export async function stampOf(path: string): Promise<string> {
  const digest = createHash('sha256');
  const add = async (name: string, file: string): Promise<void> => {
    const found = await stat(file, { bigint: true }).catch(nullIfAbsent);
    digest.update(`${name}\0${found === null ? ABSENT : `${found.size} ${found.mtimeNs}`}\0`);
  };
  const names = await readdir(path).catch(nullIfAbsent);
  if (names === null) await add('', path);
  else for (const name of names.sort()) await add(name, `${path}/${name}`);
  return digest.digest('hex').slice(0, 32);
}

/** That a file, or a folder, is not there, or the folder is empty; null: it is. */
export async function lackingFiles(path: string): Promise<string | null> {
  const names = await readdir(path).catch(nullIfAbsent);
  if (names !== null) return names.length > 0 ? null : `there is nothing in ${path}`;
  return (await stat(path).catch(nullIfAbsent)) === null ? `${path} is not there` : null;
}

/** Not there, no folder, or not for us. A disk that fails or is away says nothing of its files. */
function nullIfAbsent(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR' || error.code === 'EACCES') return null;
  throw new MidmirrorError('unavailable', `what a check goes by can't be read: ${error.message}`, {
    cause: error,
  });
}
