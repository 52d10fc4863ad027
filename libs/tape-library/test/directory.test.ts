import assert from 'node:assert/strict';
import { mkdir, mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
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

test('a cartridge whose maker died with its label on the way is made, and no other file is taken for that', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'mim-tape-'));
  try {
    await mkdir(join(directory, 'A1'));
    await writeFile(join(directory, 'A1', 'cartridge.json.new'), '{"barcode": "A');
    await mkdir(join(directory, 'A2'));
    await writeFile(join(directory, 'A2', 'letter.txt.new'), 'somebody else');
    await using library = await openLibrary(`file://${directory}`);
    await library.add({ barcode: 'A1', capacityBytes: 8 << 20 });
    assert.deepEqual(
      (await library.list()).map(({ barcode, trouble }) => [barcode, trouble]),
      [['A1', null]],
    );
    assert.deepEqual(await readdir(join(directory, 'A1')), ['cartridge.json']);
    await assert.rejects(
      library.add({ barcode: 'A2', capacityBytes: 8 << 20 }),
      /has a cartridge A2 already/,
    );
  } finally {
    await rm(directory, { recursive: true });
  }
});
