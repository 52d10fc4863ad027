import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Entry } from '../index.ts';
import { decodeName, encodeName, printName } from '../names.ts';
import { followLinks, type LinkSource, parsePath } from '../paths.ts';
import { parseFolder, parseInodes } from '../ways/debugfs-tree.ts';
import { Index } from '../ways/seven-zip-tree.ts';

test('any bytes are a name and come back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      assert.deepEqual(encodeName(decodeName(bytes)), Buffer.from(bytes));
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      assert.equal(decodeName(Buffer.from(text)), text);
    }),
  );
  // A surrogate in UTF-8 is not UTF-8.
  const surrogate = Buffer.from([0xed, 0xb2, 0x80]);
  assert.deepEqual(encodeName(decodeName(surrogate)), surrogate);
});

test('what is printed is one harmless line, and two names never look the same', () => {
  for (const [name, shown] of [
    ['plain Übung.txt', 'plain Übung.txt'],
    ['a\nb\tc', 'a\\nb\\tc'],
    ['\u001b[31m\u0007\u007f', '\\x1b[31m\\x07\\x7f'],
    ['txt.\u202eexe', 'txt.\\u{202e}exe'],
    ['\u009b', '\\u{9b}'],
    ['a\\nb', 'a\\\\nb'],
    [decodeName(Buffer.from([0x61, 0xff])), 'a\\xff'],
  ] as const)
    assert.equal(printName(name), shown);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 8 }), fc.uint8Array({ maxLength: 8 }), (one, other) => {
      const [a, b] = [printName(decodeName(one)), printName(decodeName(other))];
      // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what must not be there
      assert.doesNotMatch(a, /[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
      assert.equal(a === b, Buffer.from(one).equals(Buffer.from(other)));
    }),
  );
});

test('links are followed within the tree, or refused; a walk always ends', async () => {
  const names = ['a', 'b', 'c'];
  const targets = fc.oneof(
    fc.array(fc.constantFrom('a', 'b', 'c', '..', '.', ''), { maxLength: 6 }).map((parts) => parts.join('/')),
    fc.constant('/a'),
  );
  const node = fc.letrec((tie) => ({
    node: fc.oneof(
      { maxDepth: 3 },
      fc.constant('file'),
      targets.map((to) => ({ to })),
      fc.dictionary(fc.constantFrom(...names), tie('node')),
    ),
  })).node as fc.Arbitrary<unknown>;
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(fc.constantFrom(...names), node),
      fc.array(fc.constantFrom(...names), { maxLength: 5 }),
      async (root, path) => {
        const at = (where: readonly string[]): unknown => {
          let here: unknown = root;
          for (const name of where) {
            assert.ok(name !== '..' && name !== '', 'a way asks for nothing outside');
            const isFolder = typeof here === 'object' && here !== null && !('to' in here);
            assert.ok(isFolder, 'parents are folders');
            if (!Object.hasOwn(here as object, name)) throw new Error('not there');
            here = (here as Record<string, unknown>)[name];
          }
          return here;
        };
        const source: LinkSource = {
          entry: async (where) => {
            const found = at(where);
            const kind = found === 'file' ? 'file' : 'to' in (found as object) ? 'symlink' : 'directory';
            return { name: where.at(-1) ?? '/', kind } as Entry;
          },
          readLink: async (where) => (at(where) as { to: string }).to,
        };
        const found = await followLinks(source, path, true).catch((error: Error) => error);
        if (!(found instanceof Error)) assert.notEqual(found.entry.kind, 'symlink');
      },
    ),
    { numRuns: 2000 },
  );
});

test('a path is from the root, without ..', () => {
  assert.deepEqual(parsePath('/'), []);
  assert.deepEqual(parsePath('//var/./log/'), ['var', 'log']);
  for (const wrong of ['', 'var', '/a/../b', '/..', '/a\0'])
    assert.throws(() => parsePath(wrong), { code: 'bad-request' });
});

test('what debugfs prints is read whatever names are in it', () => {
  const output = (lines: string): Buffer => Buffer.from(`debugfs: ls -p <2>\n${lines}\n`, 'latin1');
  const folder = parseFolder(
    output(
      '/2/040755/0/0/.//\n/2/040755/0/0/..//\n/12/100644/0/0/a\nb/5/\n/13/100644/0/0/\xff/5/\n/14/040755/0/0/\n/14//\n',
    ),
  );
  assert.equal(folder, null, 'a name with / in it is not taken apart');
  assert.deepEqual(
    [
      ...parseFolder(
        output('/2/040755/0/0/.//\n/2/040755/0/0/..//\n/12/100644/0/0/a\nb/5/\n/13/100644/0/0/\xff/5/\n'),
      )!,
    ],
    [
      ['a\nb', 12],
      ['\udcff', 13],
    ],
  );
  assert.equal(parseFolder(output('')), null);
  fc.assert(fc.property(fc.uint8Array(), (bytes) => void parseFolder(Buffer.from(bytes))));
  fc.assert(fc.property(fc.string(), (text) => void parseInodes(`debugfs: inode_dump <2>\n${text}`)));
  const inodes = parseInodes(
    [
      'debugfs: inode_dump <12>',
      '0000  a481 e803 0500 0000 f437 096b f437 096b  .........7.k.7.k',
      '0020  f437 096b 0000 0000 e903 0100 0200 0000  .7.k............',
      '0040  0000 0000 0000 0000 0000 0000 0000 0000  ................',
      '*',
      '0160  0000 0000 0000 0000 0100 0200 0000 0000  ................',
      '0200  2000 0000 0000 0000 0100 0000 0000 0000   ...............',
      '0220  0000 0000 0000 0000 0000 0000 0000 0000  ................',
      '*',
      '',
      'debugfs: inode_dump <13>',
      '0000  0000 0000 0000 0000 0000 0000 0000 0000  ................',
      '*',
      '',
    ].join('\n'),
  );
  const { mode, kind, user, group, sizeBytes, modifiedMs } = inodes.get(12)!;
  assert.deepEqual(
    { mode, kind, user, group, sizeBytes },
    { mode: 0o644, kind: 'file', user: 1000 + 65_536, group: 1001 + 2 * 65_536, sizeBytes: 5 },
  );
  // Beyond 2038: the bits above are in the field beside.
  assert.equal(modifiedMs, (0x6b0937f4 + 2 ** 32) * 1000);
  assert.ok(!inodes.has(13), 'an inode that is not used is none');
});

test('what 7z prints is read in pieces of any size; files of the file system itself are left out', () => {
  const text = [
    'Path = [SYSTEM]/$MFT\nFolder = -\nSize = 5\n',
    'Path = a/b.txt\nFolder = -\nSize = 7\nMode = -rwsr-xr-t\nModified = 2021-03-04 05:06:08.25\nUser ID = 3\nGroup ID = 4\n',
    'Path = a\nFolder = +\nSize = \nModified = 2021-03-04 05:06:08\n',
    'Path = a/b.txt:stream\nFolder = -\nSize = 1\nAlternate Stream = +\n',
    'Path = l\nFolder = +\nMode = lrwxrwxrwx\nSymbolic Link = a\n',
    'Path = ../out\nFolder = -\nSize = 1\n',
    'Path = p\nFolder = -\nMode = prw-r--r--\nSize = 0\n',
  ].join('\n');
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 50 }), (step) => {
      const index = new Index();
      for (let at = 0; at < text.length; at += step) index.take(Buffer.from(text.slice(at, at + step)));
      index.end();
      const top = index.root.children!;
      assert.deepEqual([...top.keys()].sort(), ['a', 'l', 'p']);
      const { entry } = top.get('a')!.children!.get('b.txt')!;
      assert.deepEqual(entry, {
        name: 'b.txt',
        kind: 'file',
        sizeBytes: 7,
        mode: 0o5755,
        owner: { user: 3, group: 4 },
        modifiedMs: Date.parse('2021-03-04T05:06:08.250Z'),
      });
      assert.equal(top.get('a')!.entry.kind, 'directory');
      assert.deepEqual([top.get('l')!.entry.kind, top.get('l')!.target], ['symlink', 'a']);
      assert.equal(top.get('p')!.entry.kind, 'special');
    }),
  );
});
