// How much a check has in its own directory: blocks, not lengths, and files. Links are not followed, nor other mounts.
import type { Dirent } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';

const BLOCK_BYTES = 512;

/** Stops counting a little after `filesMax`. `but`: a folder that is not looked into. */
export async function scratchUse(
  folder: string,
  filesMax: number,
  but?: string,
): Promise<{ bytes: number; files: number }> {
  const device = await lstat(folder).then(
    ({ dev }) => dev,
    () => null,
  );
  let bytes = 0;
  let files = 0;
  const folders = device === null ? [] : [folder];
  for (let next = folders.pop(); next !== undefined && files <= filesMax; next = folders.pop()) {
    for (const entry of await entriesOf(next)) {
      const path = `${next}/${entry.name}`;
      const stat = await lstat(path).catch(() => null);
      if (stat === null || stat.dev !== device) continue;
      files += 1;
      bytes += stat.blocks * BLOCK_BYTES;
      if (stat.isDirectory() && path !== but) folders.push(path);
      if (files > filesMax) break;
    }
  }
  return { bytes, files };
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  return await readdir(folder, { withFileTypes: true }).catch(() => []);
}
