// Files of a mirror by pattern, without ever following a link: what is checked may have been made to lead out of it.
import { type Dirent, lstatSync, readdirSync } from 'node:fs';
import { hasWildcard, nameMatcher, partsOf } from './path-pattern.ts';

/** Paths from the root on, sorted; regular files only. */
export function filesWithin(root: string, pattern: string): string[] {
  const found = new Set<string>();
  find(root, '', partsOf(pattern), found);
  return [...found].sort();
}

function find(root: string, at: string, parts: readonly string[], found: Set<string>): void {
  const [part, ...rest] = parts;
  if (part === undefined) return;
  if (part === '**') {
    find(root, at, rest, found);
    for (const entry of entriesOf(`${root}${at}`))
      if (entry.isDirectory()) find(root, `${at}/${entry.name}`, parts, found);
    return;
  }
  for (const name of namesOf(`${root}${at}`, part)) {
    const path = `${at}/${name}`;
    const stat = lstatSync(`${root}${path}`, { throwIfNoEntry: false });
    if (rest.length === 0 && stat?.isFile() === true) found.add(path);
    if (rest.length > 0 && stat?.isDirectory() === true) find(root, path, rest, found);
  }
}

function namesOf(folder: string, part: string): string[] {
  if (!hasWildcard(part)) return [part];
  return entriesOf(folder)
    .map(({ name }) => name)
    .filter(nameMatcher(part));
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
