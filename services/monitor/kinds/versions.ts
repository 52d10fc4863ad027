// What programs and files a verdict goes by, as text that changes when they do: a new one makes earlier verdicts void.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { MidmirrorError } from '@midmirror/basis';
import { runnerLimits } from '../limits.ts';

const told = new Map<string, { said: Promise<string>; atMs: number }>();

/**
 * What a program says of its version, or has said a moment ago; `absent` when it is not there. Rejects with `unavailable`
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
      if (code === 'ENOENT' || code === 'EACCES') resolve('absent');
      else if (error?.signal == null && typeof code !== 'string') resolve(text);
      else reject(new MidmirrorError('unavailable', `${program} did not say its version: ${error!.message}`));
    });
  });
}

/** Names, sizes and times of a file, or of a folder's files: signatures are hundreds of megabytes. */
export async function stampOf(path: string): Promise<string> {
  const digest = createHash('sha256');
  const add = async (name: string, file: string): Promise<void> => {
    const found = await stat(file, { bigint: true }).catch(() => null);
    digest.update(`${name}\0${found === null ? 'absent' : `${found.size} ${found.mtimeNs}`}\0`);
  };
  const names = await readdir(path).catch(() => null);
  if (names === null) await add('', path);
  else for (const name of names.sort()) await add(name, `${path}/${name}`);
  return digest.digest('hex').slice(0, 32);
}
