import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MidmirrorError } from '@midmirror/basis';
import { ForgetfulFiles, readGaps, volumePaths, writeGaps } from '../index.ts';

const paths = volumePaths('/pool/volumes/v1');
const closed = {
  number: 1,
  fromSeq: 5,
  fromNs: 10n ** 18n + 1n,
  toSeq: 5,
  toNs: 10n ** 18n + 2n,
  reason: null,
};
const open = {
  number: 2,
  fromSeq: 9,
  fromNs: 10n ** 18n + 3n,
  toSeq: null,
  toNs: null,
  reason: 'a "cut" link',
};

test('gaps come back as they were, without any and after the power has gone', async () => {
  const forgetful = new ForgetfulFiles();
  let files = forgetful.forProcess();
  await files.makeDirectory(paths.directory);
  assert.deepEqual(await readGaps(files, paths), []);
  await writeGaps(files, paths, 3, [closed, open]);
  forgetful.processDeath();
  files = forgetful.forProcess();
  assert.deepEqual(await readGaps(files, paths), [closed, open]);
});

test('what an owner writes that has lost the volume does not count, and goes', async () => {
  const files = new ForgetfulFiles().forProcess();
  await files.makeDirectory(paths.directory);
  await writeGaps(files, paths, 3, [open]);
  await writeGaps(files, paths, 4, [closed, open]);
  assert.deepEqual(await files.list(paths.gaps), ['00000004.json']);
  await writeGaps(files, paths, 3, []);
  assert.deepEqual(await readGaps(files, paths), [closed, open]);
  await writeGaps(files, paths, 4, [closed]);
  assert.deepEqual(await files.list(paths.gaps), ['00000004.json']);
});

test('a damaged one is refused by name, with what to do: what must not be read is not guessed', async () => {
  const files = new ForgetfulFiles().forProcess();
  await files.makeDirectory(paths.gaps);
  for (const text of [
    '{"format":1,"gaps":[{"number":1}]}',
    '{"format":2,"gaps":[]}',
    '{"format":1',
    'null',
    '',
  ]) {
    const file = await files.open(`${paths.gaps}/00000001.json`, 'create');
    await file.writev([new TextEncoder().encode(text)], 0);
    await file.close();
    await assert.rejects(
      readGaps(files, paths),
      (error: MidmirrorError) =>
        error.code === 'corrupt' &&
        /gaps\/00000001\.json/.test(error.message) &&
        /copy of the pool/.test(error.hint ?? ''),
      text,
    );
    await files.unlink(`${paths.gaps}/00000001.json`);
  }
});
