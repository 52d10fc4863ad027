// Real file systems and their real checkers: sound ones, damaged ones, and ones in mid-write that their journal makes whole.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noIsolation } from '../runner/isolation.ts';
import { checkDisk, FORMATS, formatted, spoiled } from './formats.ts';
import { asGuest, RecordedDisk, runs } from './recorded-disk.ts';
import { withFolder } from './shell-check.ts';

for (const type of Object.keys(FORMATS) as (keyof typeof FORMATS)[])
  test(`${type}: a sound one is good, a damaged one bad`, () =>
    withFolder(async (folder) => {
      const sound = formatted(folder, type);
      const good = await checkDisk(folder, Buffer.from(sound));
      assert.equal(good.verdict, 'good', good.output);
      assert.match(good.output, new RegExp(`the whole disk, ${type}.*: good`));
      assert.deepEqual(good.left, []);
      const bad = await checkDisk(folder, spoiled(sound, type));
      assert.equal(bad.verdict, 'bad', `${bad.reason}: ${bad.output}`);
      assert.match(bad.output, new RegExp(`the whole disk, ${type}.*: bad`));
    }));

const GUEST = `
import os, sys
os.chdir(sys.argv[1])
for i in range(40): open(f'file{i}', 'wb').write(os.urandom(1000 + i * 100))
os.sync()
for i in range(0, 40, 2): os.unlink(f'file{i}')
last = open('last', 'w'); last.write('x'); last.flush(); os.fsync(last.fileno())
`;

/** Written by a guest that is still at it: its journal is behind. */
async function inMidWrite(folder: string, type: 'ext4' | 'xfs'): Promise<Buffer> {
  const { sizeBytes, mkfs } = FORMATS[type];
  const disk = new RecordedDisk(sizeBytes);
  let seq = 0;
  await asGuest(folder, disk.live, { mkfs }, async (files) => {
    // In a process of its own: this one serves the disk, and must not wait for it.
    await runs('python3', ['-c', GUEST, files]);
    seq = disk.writes.length;
  });
  return disk.at(seq);
}

for (const type of ['ext4', 'xfs'] as const)
  test(`${type} in mid-write: good on a clone, after its journal's replay; on a mirror it can't tell`, () =>
    withFolder(async (folder) => {
      const bytes = await inMidWrite(folder, type);
      const before = Buffer.from(bytes);
      const mirror = await checkDisk(folder, bytes, { writable: false });
      assert.equal(mirror.verdict, 'cannot-tell', mirror.output);
      assert.match(mirror.output, /is to be replayed, and this is no clone/);
      assert.ok(bytes.equals(before), 'a mirror is not written to');
      const clone = await checkDisk(folder, bytes);
      assert.equal(clone.verdict, 'good', clone.output);
      assert.ok(bytes.equals(before), 'what the journal had was written beside it');
      assert.equal(
        (await checkDisk(folder, Buffer.from(before), { isolation: noIsolation })).verdict,
        'good',
      );
    }));
