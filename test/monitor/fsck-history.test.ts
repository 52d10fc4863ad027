// A bad write at a random place in the history of a real ext4 in use: `bisect` by fsck names exactly that one, though most of
// the moments it looks at are in mid-write, with a journal to replay. What has been told is not asked again.
import assert from 'node:assert/strict';
import { mkdirSync, openSync, readSync, closeSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { succeed, withAppliance } from '../appliance/appliance-process.ts';
import {
  BLOCK_BYTES,
  certify,
  clonesOf,
  ext4Image,
  inodePlace,
  leftOf,
  type ShownJob,
} from './checked-volume.ts';
import { imageWrites, play, record, type RecordedWrite } from './recorded-disk.ts';

const SIZE = 64 << 20;
const SEED = Number(process.env['MONITOR_SEED'] ?? Date.now() % 2 ** 31);

/** Files that are written, synced, overwritten and removed. */
const WORK = `cd "$0" && mkdir busy && for i in $(seq 200); do
  echo "file $i" >busy/f$i
  [ $((i % 5)) = 0 ] && sync -f .
  [ $((i % 3)) = 0 ] && rm -f busy/f$((i / 2))
  dd if=/dev/urandom of=big bs=20k count=1 seek=$((i % 30)) conv=notrunc status=none
done; true`;

/** The block with the inode of a file that nobody touches, with that inode overwritten. */
async function badWrite(image: string, inode: number): Promise<RecordedWrite> {
  const { blockStart: start, offsetInBlock } = await inodePlace(image, inode);
  const data = Buffer.alloc(BLOCK_BYTES);
  const file = openSync(image, 'r');
  readSync(file, data, 0, BLOCK_BYTES, start);
  closeSync(file);
  data.fill(0xa5, offsetInBlock, offsetInBlock + 128);
  return { kind: 'write', start, length: BLOCK_BYTES, data };
}

test('bisect by fsck names the bad write in the history of an ext4 in use', (context) => {
  context.diagnostic(`MONITOR_SEED=${SEED}`);
  return withAppliance({}, async (appliance, folder) => {
    const image = await ext4Image(folder, SIZE, (source) => {
      mkdirSync(`${source}/quiet`);
      for (let i = 0; i < 80; i += 1) writeFileSync(`${source}/quiet/f${i}`, `quiet ${i}`);
    });
    const made = imageWrites(image);
    const bad = await badWrite(image, 50);
    const used = await record(folder, image, async (path) => void (await succeed('sh', ['-c', WORK, path])));
    assert.ok(
      used.every(({ start, length }) => start + length <= bad.start || start >= bad.start + BLOCK_BYTES),
      'nothing heals it',
    );
    const before = new SeededRandom(SEED).below(used.length);
    const badAt = made.length + before + 1;
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    await play(appliance.uri('db'), [...made, ...used.slice(0, before), bad, ...used.slice(before)]);
    const added = await appliance.mim('check', 'add', 'db', 'fsck', '--name', 'fsck');
    assert.equal(added.status, 0, added.stderr);
    const good = `seq:${made.length}`;
    const { job } = await appliance.json<{ job: ShownJob }>(
      ...['bisect', 'db', '--check', 'fsck', '--good', good, '--jobs', '1'],
    );
    assert.equal(job.end?.kind, 'found', JSON.stringify(job));
    assert.deepEqual([job.end.lastGood?.seq, job.end.firstBad?.seq], [badAt - 1, badAt]);
    assert.deepEqual(job.end.unsteady, []);
    const bound = Math.ceil(Math.log2(used.length + 1)) + 2;
    assert.ok(job.probes <= bound, `${job.probes} probes of ${used.length + 1} writes`);
    const verdict = await certify(appliance, 'db', 'fsck');
    assert.match(verdict.output, /Inode 50 /);

    // The newest moment, with what the check does not look at overwritten, is not looked at again.
    const free = await freeBlock(image);
    const client = await connectNbd(appliance.uri('db'));
    await client.write(free * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 'nobody reads this'));
    await client.flush();
    const again = await certify(appliance, 'db', 'fsck');
    assert.deepEqual([again.verdict, again.reusedFrom], ['bad', verdict.reusedFrom ?? verdict.seq]);
    assert.equal(again.seq, made.length + used.length + 2);
    // With what it does look at, it is.
    await client.write(bad.start, Buffer.from(bad.data!).fill(0x5a, BLOCK_BYTES / 2));
    await client.close();
    const anew = await certify(appliance, 'db', 'fsck');
    assert.deepEqual([anew.verdict, anew.reusedFrom], ['bad', null]);
    assert.deepEqual(leftOf(`${folder}/data`), []);
    assert.deepEqual(await clonesOf(appliance), []);
  });
});

async function freeBlock(image: string): Promise<number> {
  const said = await succeed('debugfs', ['-R', 'ffb 1 15000', image]);
  return Number(/(\d+)\s*$/.exec(said.trim())![1]);
}
