// A real ext4 that has been used for a while: files encrypted in place are told from an archive that is unpacked over deleted
// files.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { EntropyWatch } from '../core/entropy.ts';
import { agedDisk, guest } from './aged-disk.ts';
import { MemoryDisk, RecordedDisk } from './recorded-disk.ts';

const ENCRYPT = `
import os, sys
os.chdir(sys.argv[1] + '/texts')
for name in sorted(os.listdir('.'), key=int):
    with open(name, 'r+b') as f:
        length = len(f.read()); f.seek(0); f.write(os.urandom(length)); f.flush(); os.fsync(f.fileno())
`;
/** Compressed texts out of an archive, over all the room there is, that of deleted files too. */
const UNPACK = `
import os, sys, zlib, random
os.chdir(sys.argv[1]); random.seed(3)
os.mkdir('unpacked')
for i in range(30):
    text = ' '.join(str(random.randint(0, 10**9)) for _ in range(60000)).encode()
    with open(f'unpacked/{i}.gz', 'wb') as f:
        f.write(zlib.compress(text)); f.flush(); os.fsync(f.fileno())
`;

let folder: string;
let disk: RecordedDisk;
let begun: number;

before(async () => {
  folder = mkdtempSync(`${tmpdir()}/mim-`);
  ({ disk, begun } = await agedDisk(folder));
});

after(() => rmSync(folder, { recursive: true, force: true }));

/** After how many of the writes from `from` on it was condemned; null: it never was. */
function watchWrites(history: RecordedDisk, from: number): { condemnedAt: number | null; writes: number } {
  const watch = new EntropyWatch(history.sizeBytes);
  watch.seed(0, history.at(from));
  for (const [i, { startBytes, lengthBytes, bytes }] of history.writes.entries()) {
    if (i < from) continue;
    if (bytes === null) watch.erase(i, startBytes, lengthBytes);
    else watch.write(i, startBytes, bytes);
    if (watch.look(i).verdict === 'bad')
      return { condemnedAt: i - from, writes: history.writes.length - from };
  }
  return { condemnedAt: null, writes: history.writes.length - from };
}

async function continued(program: string): Promise<{ history: RecordedDisk; from: number }> {
  const history = new RecordedDisk(disk.sizeBytes);
  history.writes.push(...disk.writes);
  const from = disk.writes.length;
  const live = new MemoryDisk(disk.at(from), (write) => history.writes.push(write));
  await guest(folder, live, program);
  return { history, from };
}

test('files encrypted in place condemn before a tenth of them is gone', async () => {
  const { history, from } = await continued(ENCRYPT);
  const { condemnedAt } = watchWrites(history, from);
  assert.notEqual(condemnedAt, null);
  // What is random by then is what was encrypted by then.
  const dense = history.writes
    .slice(from, from + condemnedAt! + 1)
    .reduce(
      (sum, { lengthBytes, bytes }) => sum + (bytes !== null && lengthBytes > 4096 ? lengthBytes : 0),
      0,
    );
  const texts = 150 * 20_000 * 6.5;
  assert.ok(dense < texts / 10, `${dense} bytes of ${texts}`);
});

test('an archive that is unpacked does not condemn, nor does the history before it', async () => {
  const { history, from } = await continued(UNPACK);
  const { condemnedAt, writes } = watchWrites(history, from);
  assert.equal(condemnedAt, null);
  assert.ok(writes > 100);
  assert.equal(watchWrites(disk, begun).condemnedAt, null);
});
