// Files of a real ext4 that somebody encrypts are told from an archive that is unpacked, before a tenth of them is gone: by a
// check that is asked for, which finds the write, and by one that goes along with the writes.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { tmpdir } from 'node:os';
import { SeededRandom } from '@midmirror/basis';
import { type ApplianceProcess, succeed, withAppliance } from '../appliance/appliance-process.ts';
import { certify, ended, ext4Image, jobs, type ShownJob, until, verdicts } from './checked-volume.ts';
import { imageWrites, play, record, type RecordedWrite } from './recorded-disk.ts';

const SIZE = 64 << 20;
const FILES = 120;
const FILE_BYTES = 130_000;

/** Compressed texts, as they come out of an archive, onto room that nothing has. */
const UNPACK = `
import os, sys, zlib, random
os.chdir(sys.argv[1]); random.seed(3); os.mkdir('unpacked')
for i in range(20):
    text = ' '.join(str(random.randint(0, 10**9)) for _ in range(40000)).encode()
    with open(f'unpacked/{i}.gz', 'wb') as f:
        f.write(zlib.compress(text)); f.flush(); os.fsync(f.fileno())
`;
const ENCRYPT = `
import os, sys
os.chdir(sys.argv[1] + '/texts')
for name in sorted(os.listdir('.'), key=int):
    with open(name, 'r+b') as f:
        length = len(f.read()); f.seek(0); f.write(os.urandom(length)); f.flush(); os.fsync(f.fileno())
`;

let folder: string;
let made: RecordedWrite[];
let unpacked: RecordedWrite[];
let encrypted: RecordedWrite[];

before(async () => {
  folder = mkdtempSync(`${tmpdir()}/mim-`);
  const random = new SeededRandom(1);
  const words = Array.from({ length: 500 }, () =>
    Array.from({ length: 2 + random.below(8) }, () => String.fromCharCode(97 + random.below(26))).join(''),
  );
  const image = await ext4Image(folder, SIZE, (source) => {
    mkdirSync(`${source}/texts`);
    for (let i = 0; i < FILES; i += 1) {
      let text = '';
      while (text.length < FILE_BYTES) text += `${random.pick(words)} `;
      writeFileSync(`${source}/texts/${i}`, text);
    }
  });
  made = imageWrites(image);
  const by = (guest: string, name: string) => {
    mkdirSync(`${folder}/${name}`);
    const work = async (path: string) => void (await succeed('python3', ['-c', guest, path]));
    return record(`${folder}/${name}`, image, work);
  };
  unpacked = await by(UNPACK, 'u');
  encrypted = await by(ENCRYPT, 'e');
});

after(() => rmSync(folder, { recursive: true, force: true }));

/** Random bytes among the first writes of the encryption, as a share of the files. */
function shareGone(writes: number): number {
  const gone = encrypted
    .slice(0, writes)
    .reduce((sum, { length, data }) => sum + (data !== null && length > 4096 ? length : 0), 0);
  return gone / (FILES * FILE_BYTES);
}

/** Each part ends with a snapshot, as days do: the writes of one minute are one step else. */
async function history(appliance: ApplianceProcess): Promise<number> {
  await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
  for (const writes of [made, unpacked]) {
    await play(appliance.uri('db'), writes);
    await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
  }
  return made.length + unpacked.length;
}

async function add(appliance: ApplianceProcess, ...more: string[]): Promise<void> {
  const added = await appliance.mim('check', 'add', 'db', 'entropy', '--name', 'writes', ...more);
  assert.equal(added.status, 0, added.stderr);
}

test('asked for: an unpacked archive is good, encrypted files are not, and the write that was too much is named', () =>
  withAppliance({}, async (appliance) => {
    const begun = await history(appliance);
    await add(appliance, '--set', 'live=false');
    const good = await certify(appliance, 'db', 'writes');
    assert.equal(good.verdict, 'good', good.reason + good.output);
    await play(appliance.uri('db'), encrypted);
    const bad = await certify(appliance, 'db', 'writes');
    assert.equal(bad.verdict, 'bad', bad.output);
    assert.match(bad.output, /plain data .* became dense .* as when files are encrypted/);
    const asked = { check: 'writes', good: `seq:${begun}`, jobs: 1 };
    const { job } = await appliance.post<{ job: ShownJob }>('/volumes/db/bisections', asked);
    const { end, probes, probesMax } = await ended(appliance, job.job);
    assert.equal(end?.kind, 'found');
    assert.ok(probes <= probesMax!);
    const share = shareGone(end!.firstBad!.seq - begun);
    assert.ok(share > 0 && share < 0.1, `${share} of the files were gone`);
    // What is written later does not make good what stands there.
    await play(appliance.uri('db'), unpacked.slice(0, 1));
    const later = await certify(appliance, 'db', 'writes');
    assert.equal(later.verdict, 'bad');
    assert.equal(later.reusedFrom, end!.firstBad!.seq);
    const { lastGood } = end!;
    const found = await appliance.get<{ seq: number }>('/volumes/db/last-good?check=writes');
    assert.equal(found.seq, lastGood!.seq);
    await putBackByHand(appliance, lastGood!.seq);
    // It was rightful, somebody says: from now on.
    assert.equal((await appliance.mim('check', 'remove', 'db', 'writes')).status, 0);
    await add(appliance, '--set', 'live=false', '--set', `from=${new Date().toISOString()}`);
    await play(appliance.uri('db'), unpacked.slice(0, 1));
    const anew = await certify(appliance, 'db', 'writes');
    assert.equal(anew.verdict, 'good', anew.reason);
  }));

/** Its verdict ends with it, and comes again with what undoes it. */
async function putBackByHand(appliance: ApplianceProcess, good: number): Promise<void> {
  await assert.rejects(
    appliance.post('/volumes/db/put-backs', { good: `seq:${good}` }),
    /409.*not as of write \d+: it differs at byte \d+/s,
  );
  const restored = await appliance.mim('restore', 'db', '--last-good', '--check', 'writes', '--in-place');
  assert.equal(restored.status, 0, restored.stderr);
  assert.match(restored.stdout, /The check writes judges what is written from here on/);
  const [newest] = await verdicts(appliance, 'db', 'writes');
  assert.deepEqual([newest!.verdict, newest!.reusedFrom], ['good', good]);
  await play(appliance.uri('db'), unpacked.slice(0, 1));
  const later = await certify(appliance, 'db', 'writes');
  assert.equal(later.verdict, 'good', later.reason);

  const [, mark] = /--at (mark:\S+)/.exec(restored.stdout)!;
  const undone = await appliance.mim('restore', 'db', '--at', mark!, '--in-place');
  assert.equal(undone.status, 0, undone.stderr);
  assert.doesNotMatch(undone.stdout, /judges what is written/);
  const again = await certify(appliance, 'db', 'writes');
  assert.equal(again.verdict, 'bad', again.reason);
}

test('by itself, as the writes come: condemned before a tenth is gone, put back, and watched again', () =>
  withAppliance({ MIM_METRICS_LISTEN: '127.0.0.1:0' }, async (appliance) => {
    const begun = await history(appliance);
    await add(appliance, '--on-condemned', 'restore');
    const said = () => verdicts(appliance, 'db', 'writes');
    await until('what it says of the writes so far', async () => (await said()).length > 0);
    assert.deepEqual(
      (await said()).map(({ verdict }) => verdict),
      ['good'],
    );
    // The next file once the one before has been seen: on a machine however slow.
    let seen = await turned(appliance);
    let written = 0;
    while (written < encrypted.length && !(await said()).some(({ verdict }) => verdict === 'bad')) {
      const from = written;
      while (written < encrypted.length && shareGone(written) - shareGone(from) < 1 / FILES) written += 1;
      await play(appliance.uri('db'), encrypted.slice(from, written));
      const before = seen;
      seen = await until('the writes to be seen', async () => {
        const now = await turned(appliance);
        return now === null || now > (before ?? 0) ? (now ?? 1) : null;
      });
    }
    const [bad, good] = await until('both points', async () => {
      const all = await said();
      const at = all.findIndex(({ verdict, reusedFrom }) => verdict === 'bad' && reusedFrom === null);
      return at >= 0 && all.slice(at);
    });
    assert.equal(good!.verdict, 'good');
    assert.ok(good!.seq >= begun && good!.seq < bad!.seq);
    const share = shareGone(bad!.seq - begun);
    assert.ok(share > 0 && share < 0.1, `${share} of the files were gone`);

    const job = await until('the volume to be put back', async () =>
      (await jobs(appliance)).find(({ task }) => task === 'restore'),
    );
    const { end } = await ended(appliance, job.job);
    assert.deepEqual([end?.kind, end?.lastGood?.seq], ['restored', good!.seq]);
    const [newest] = await said();
    assert.deepEqual([newest!.verdict, newest!.reusedFrom], ['good', good!.seq]);
    assert.match(newest!.reason, new RegExp(`put back to write ${good!.seq}`));
    // What was condemned does not condemn what came after.
    await until('somebody to watch again', async () => (await turned(appliance)) === 0);
    await play(appliance.uri('db'), unpacked.slice(0, 1));
    const later = await certify(appliance, 'db', 'writes');
    assert.equal(later.verdict, 'good', later.reason);
    const shown = await appliance.mim('show', 'db');
    assert.match(shown.stdout, new RegExp(`writes +entropy +as writes come +restore +write ${later.seq}`));
  }));

/** Null: nobody watches any more. */
async function turned({ metrics }: ApplianceProcess): Promise<number | null> {
  const text = await (await fetch(`${metrics}/metrics`)).text();
  const found = /^midmirror_entropy_turned_ratio\{.*\} (\S+)$/m.exec(text);
  return found === null ? null : Number(found[1]);
}
