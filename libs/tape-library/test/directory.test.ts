import assert from 'node:assert/strict';
import { mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLibrary, type Part } from '../index.ts';
import { type LibraryUnderTest, tapeLibraryContract } from './contract.ts';

async function directories(): Promise<LibraryUnderTest> {
  const root = await mkdtemp(join(tmpdir(), 'mim-tape-'));
  let count = 0;
  return {
    async fresh() {
      const directory = await mkdtemp(join(root, `${(count += 1)}-`));
      const fileOf = async (part: Part, ending: string): Promise<string> => {
        const stem = String(part.position).padStart(6, '0');
        const names = await readdir(join(directory, part.barcode));
        return join(
          directory,
          part.barcode,
          names.find((name) => name.startsWith(stem) && name.endsWith(ending))!,
        );
      };
      return {
        open: () => openLibrary(`file://${directory}`),
        async flip(part, at) {
          await using file = await open(await fileOf(part, '.data'), 'r+');
          const byte = Buffer.alloc(1);
          await file.read(byte, 0, 1, at);
          byte[0]! ^= 0x10;
          await file.write(byte, 0, 1, at);
        },
        truncate: async (part) => truncate(await fileOf(part, '.data'), part.bytes - 1),
        async breakLabel(part) {
          const file = await fileOf(part, '.json');
          await writeFile(file, (await readFile(file, 'utf8')).replace('"bytes": 1', '"bytes": 2'));
        },
      };
    },
    close: () => rm(root, { recursive: true }),
  };
}

tapeLibraryContract('directory', directories);

test('a directory that is not there is not made: a mount may be missing', async () => {
  await assert.rejects(openLibrary('file:///nowhere/at/all'), /\/nowhere\/at\/all does not exist/);
});
