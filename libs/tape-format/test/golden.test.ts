// Archives of format version 1 as they were first released: every later Midmirror reads them. Never make them anew.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { checkStep, openArchive, parseIdentities } from '../index.ts';
import { chunked } from './volume-bytes.ts';

const golden = (name: string): Promise<Buffer> => readFile(new URL(`golden/${name}`, import.meta.url));

test('an image and a difference of format version 1 are read', async () => {
  const identities = parseIdentities((await golden('key.txt')).toString(), 'key.txt');
  const disk = Buffer.alloc(256 * 1024 + 512, 0xee);
  const manifests = [];
  for (const [name, sha256] of [
    ['v1-image.tar.zst', '9c926cbf12462e573f8fb08e24ba62db9b5d9d2b7d7aa140ef9ee5a986a37235'],
    ['v1-difference.tar.zst.age', '298a809987b24c34c965cd3b09a8f190153e265bc15989191b91920a4467aed0'],
  ] as const) {
    const reading = await openArchive(chunked(await golden(name)), { identities });
    for await (const range of reading.ranges()) {
      if (range.kind === 'data') range.bytes.copy(disk, range.startBytes);
      else disk.fill(0, range.startBytes, range.startBytes + range.lengthBytes);
    }
    assert.equal(createHash('sha256').update(disk).digest('hex'), sha256);
    assert.equal(disk.length, reading.manifest.volume.sizeBytes);
    manifests.push(reading.manifest);
  }
  const [image, difference] = [manifests[0]!, manifests[1]!];
  checkStep(image, null);
  checkStep(difference, image);
});
