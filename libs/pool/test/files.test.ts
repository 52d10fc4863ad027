// What every adapter of the file port owes: a file is closed once, and nothing reaches it afterwards.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { createMim, ForgetfulFiles, MimImage, MimWriter, nodeFiles, volumePaths } from '../index.ts';
import type { PoolFiles } from '../index.ts';

async function onBoth(act: (files: PoolFiles, directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(`${tmpdir()}/mim-files-`);
  try {
    await act(nodeFiles(), directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  await act(new ForgetfulFiles(), 'memory');
}

test('a closed file is not closed again, and nothing is read from or written to it', async () => {
  await onBoth(async (files, directory) => {
    const file = await files.open(`${directory}/a`, 'create');
    await file.writev([new Uint8Array(512).fill(1)], 0);
    await file.close();
    // The kernel gives its number to the next file that is opened.
    const next = await files.open(`${directory}/b`, 'create');
    const bytes = new Uint8Array(512);
    const closed = (error: Error): boolean => /a after it was closed/.test(error.message);
    await assert.rejects(file.close(), closed);
    await assert.rejects(file.writev([bytes], 0), closed);
    await assert.rejects(file.read(bytes, 0, 512, 0), closed);
    await assert.rejects(file.datasync(), closed);
    assert.throws(() => file.writevSync([bytes], 0), closed);
    assert.throws(() => file.readSync(bytes, 0, 512, 0), closed);
    assert.throws(() => file.datasyncSync(), closed);
    assert.equal(await next.size(), 0);
    await next.close();
  });
});

test('a file that is closed in the middle of a write closes after it', async () => {
  await onBoth(async (files, directory) => {
    const file = await files.open(`${directory}/a`, 'create');
    const bytes = new Uint8Array(8 << 20).fill(7);
    const writing = file.writev([bytes], 0);
    const closing = file.close();
    const others = await Promise.all(
      Array.from({ length: 8 }, (_, i) => files.open(`${directory}/other${i}`, 'create')),
    );
    await Promise.all([writing, closing]);
    for (const other of others) {
      assert.equal(await other.size(), 0);
      await other.close();
    }
    const again = await files.open(`${directory}/a`, 'read');
    assert.equal(await again.size(), bytes.length);
    await again.close();
  });
});

test('marks that a dead process left in the page cache are durable before data relies on them', async () => {
  const files = new ForgetfulFiles();
  const paths = volumePaths('volume');
  const sizeBytes = 256 << 10;
  await createMim(files, paths, sizeBytes, 0n);
  const ranges = [65_536, 4096];
  const dying = await MimWriter.open(files.forProcess(), paths);
  files.beforeChange = (operation) => {
    if (operation === 'datasync') throw new Error('killed');
  };
  await assert.rejects(dying.mark(ranges), /killed/);
  files.processDeath();
  files.beforeChange = () => {};
  const writer = await MimWriter.open(files.forProcess(), paths);
  await writer.mark(ranges);
  await writer.write([new Uint8Array(4096).fill(5)], 65_536);
  await writer.sync();
  files.powerLoss(new SeededRandom(1));
  const image = await MimImage.open(files.forProcess(), paths);
  const target = new Uint8Array(4096);
  assert.equal(image.tryRead(65_536, 4096, target, 0), true);
  assert.deepEqual(target, new Uint8Array(4096).fill(5));
  assert.equal(image.span(65_536, 4096).hole, false);
  await image.close();
});
