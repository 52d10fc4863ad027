// Paths within a file system of a mirror. Symbolic links are followed here, step by step, never by the system: a link
// of somebody else's disk must not name a file of this machine.
import { MidmirrorError } from '@midmirror/basis';
import { limits } from './limits.ts';
import type { Entry } from './mirror-files.ts';
import { encodeName, printName } from './names.ts';

/** Names from the root on; none: the root. */
export type Path = readonly string[];

export function parsePath(text: string): Path {
  const wrong = (why: string): MidmirrorError =>
    new MidmirrorError('bad-request', `"${printName(text)}" is not a path in a mirror: ${why}`, {
      hint: 'write it from the root of the file system on, as in /var/log/syslog',
    });
  if (!text.startsWith('/')) throw wrong('it does not begin with /');
  if (text.includes('\0')) throw wrong('it has a zero byte in it');
  if (encodeName(text).length > limits.pathBytesMax)
    throw wrong(`it is longer than ${limits.pathBytesMax} bytes`);
  const names = text.split('/').filter((name) => name !== '' && name !== '.');
  if (names.includes('..')) throw wrong('".." is not taken');
  return names;
}

export function printPath(path: Path): string {
  return printName(`/${path.join('/')}`);
}

export interface LinkSource {
  entry(path: Path): Promise<Entry>;
  readLink(path: Path): Promise<string>;
}

/**
 * The path without symbolic links, and what is there. A link that is absolute or climbs out of the file system is
 * refused: where that was mounted is not known here, so it can't be said which file is meant.
 */
export async function followLinks(
  source: LinkSource,
  asked: Path,
  followLast: boolean,
): Promise<{ path: Path; entry: Entry }> {
  let path: string[] = [];
  let entry = await source.entry(path);
  const left = [...asked];
  for (let followed = 0; left.length > 0; ) {
    const name = left.shift()!;
    if (name === '..') {
      if (path.length === 0)
        throw new MidmirrorError(
          'bad-request',
          `${printPath(asked)}: a symbolic link on the way leaves the file system`,
        );
      path = path.slice(0, -1);
      entry = await source.entry(path);
      continue;
    }
    if (entry.kind !== 'directory') throw notFound(asked, `${printPath(path)} is no folder`);
    path = [...path, name];
    entry = await source.entry(path);
    if (entry.kind !== 'symlink' || (left.length === 0 && !followLast)) continue;
    followed += 1;
    if (followed > limits.linksFollowedMax)
      throw new MidmirrorError(
        'bad-request',
        `${printPath(asked)}: too many symbolic links, one to the other`,
      );
    const target = await source.readLink(path);
    left.unshift(...targetNames(target, path));
    path = path.slice(0, -1);
    entry = await source.entry(path);
  }
  return { path, entry };
}

function targetNames(target: string, link: Path): string[] {
  const refused = (why: string, hint: string): MidmirrorError =>
    new MidmirrorError(
      'bad-request',
      `${printPath(link)} is a symbolic link to ${printName(target)}, ${why}`,
      {
        hint,
      },
    );
  if (target.startsWith('/'))
    throw refused(
      'which counts from the root of the machine that the disk was in',
      `if this was its root, ask for ${printName(target)}`,
    );
  const names = target.split('/').filter((name) => name !== '' && name !== '.');
  let depth = link.length - 1;
  for (const name of names) {
    depth += name === '..' ? -1 : 1;
    if (depth < 0)
      throw refused(
        'which leaves the file system',
        'its target is not on this file system; look for it there',
      );
  }
  if (names.length > limits.pathBytesMax / 2) throw refused('which is too long', 'it is not followed');
  return names;
}

export function notFound(path: Path, why?: string): MidmirrorError {
  return new MidmirrorError(
    'not-found',
    `${printPath(path)} does not exist${why === undefined ? '' : `: ${why}`}`,
  );
}
