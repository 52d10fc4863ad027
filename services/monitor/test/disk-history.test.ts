// A real ext4 with a long history in which one write is bad: the search with fsck names exactly that write, within its bound,
// one probe at a time and two at once; the walk goes back to the last good mirror; and the entropy watch tells files that
// are encrypted from an archive that is unpacked.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { SeededRandom } from '@midmirror/basis';
import { probesMade, startBisect } from '../core/bisect.ts';
import { EntropyWatch } from '../core/entropy.ts';
import type { Verdict } from '../core/verdict.ts';
import { startWalk } from '../core/walk.ts';
import { runSearch } from '../loops/search-loop.ts';
import { runWalk } from '../loops/walk-loop.ts';
import { probing } from './moment.ts';
import { asGuest, MemoryDisk, RecordedDisk, runs, serving } from './recorded-disk.ts';

const MIB = 2 ** 20;
const SEED = Number(process.env['MIM_TEST_SEED'] ?? 20_261_127);

/** A folder that nobody touches later, and files that say something. */
const FIRST = `
import os, sys, random
os.chdir(sys.argv[1]); random.seed(1)
os.mkdir('quiet')
for i in range(50): open(f'quiet/{i}', 'w').write('x' * 100)
words = [''.join(random.choice('abcdefghijklmnopqrstuvwxyz') for _ in range(random.randint(2, 9))) for _ in range(500)]
os.mkdir('texts')
for i in range(150): open(f'texts/{i}', 'w').write(' '.join(random.choice(words) for _ in range(20000)))
`;
/** Files written, rewritten and removed, each step on the disk before the next. */
const LATER = `
import os, sys, random
os.chdir(sys.argv[1]); random.seed(2)
os.mkdir('busy')
for i in range(250):
    with open(f'busy/{random.randint(0, 60)}', 'w') as f:
        f.write('y' * random.randint(1, 30000)); f.flush(); os.fsync(f.fileno())
    if i % 5 == 0:
        try: os.unlink(f'busy/{random.randint(0, 60)}')
        except FileNotFoundError: pass
`;
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
const disk = new RecordedDisk(64 * MIB);
/** Writes that were there when the guest mounted it for the second time: its journal is empty then. */
let begun = 0;
/** A block of the quiet folder. */
let quietBytes = 0;

function guest(device: MemoryDisk, program: string, mkfs?: readonly string[]): Promise<void> {
  return asGuest(folder, device, mkfs === undefined ? {} : { mkfs }, async (files) => {
    await runs('python3', ['-c', program, files]);
  });
}

before(async () => {
  folder = mkdtempSync(`${tmpdir()}/mim-`);
  await guest(disk.live, FIRST, ['mkfs.ext4', '-q', '-b', '4096', '-J', 'size=8']);
  begun = disk.writes.length;
  await guest(disk.live, LATER);
  writeFileSync(`${folder}/image`, disk.at(disk.writes.length));
  const block = (await runs('debugfs', ['-R', 'blocks /quiet', `${folder}/image`])).trim().split(' ')[0];
  quietBytes = Number(block) * 4096;
  assert.ok(quietBytes > 0);
});

after(() => rmSync(folder, { recursive: true, force: true }));

/** The history with one more write, which becomes number `badSeq`: somebody spoils the quiet folder. */
function withBadWrite(badSeq: number): RecordedDisk {
  const history = new RecordedDisk(disk.sizeBytes);
  const bytes = Buffer.from(disk.at(badSeq - 1).subarray(quietBytes, quietBytes + 4096));
  bytes.fill(0xee, 100, 400);
  const bad = { startBytes: quietBytes, lengthBytes: 4096, bytes };
  history.writes.push(...disk.writes.slice(0, badSeq - 1), bad, ...disk.writes.slice(badSeq - 1));
  return history;
}

/** Each probe has a clone of its own. */
async function fsckAt(history: RecordedDisk, seq: number): Promise<Verdict> {
  const result = await serving(folder, new MemoryDisk(history.at(seq)), (uri) =>
    probing('fsck', { fileSystemsMin: 1 }, { mirror: { uri, writable: true } }, folder),
  );
  assert.notEqual(result.verdict, 'cannot-tell', `${result.reason}: ${result.output}`);
  return result.verdict;
}

async function search(history: RecordedDisk, jobs: number): Promise<{ end: unknown; probes: number }> {
  const coarse = Array.from(
    { length: 8 },
    (_, i) => begun + Math.floor(((i + 1) * (history.writes.length - begun)) / 9),
  );
  const state = startBisect({
    good: begun,
    bad: history.writes.length,
    goodKnown: true,
    badKnown: true,
    coarse,
  });
  const { end, state: ended } = await runSearch(state, {
    jobs,
    signal: new AbortController().signal,
    probe: (seq) => fsckAt(history, seq),
    keep: async () => {},
  });
  return { end, probes: probesMade(ended) };
}

test('the search names exactly the bad write, within log2 of the moments and two', async () => {
  const random = new SeededRandom(SEED);
  for (const jobs of [1, 2]) {
    const badSeq = begun + 2 + random.below(disk.writes.length - begun - 2);
    const history = withBadWrite(badSeq);
    const { end, probes } = await search(history, jobs);
    assert.deepEqual(end, { kind: 'found', lastGood: badSeq - 1, firstBad: badSeq }, `MIM_TEST_SEED=${SEED}`);
    const moments = history.writes.length - begun;
    if (jobs === 1) assert.ok(probes <= Math.log2(moments) + 2, `${probes} probes of ${moments} moments`);
  }
});

test('the walk goes back from the condemned mirror to the last good one', async () => {
  const badSeq = begun + Math.floor((disk.writes.length - begun) / 2);
  const history = withBadWrite(badSeq);
  const mirrors = Array.from(
    { length: 9 },
    (_, i) => begun + Math.floor((i * (history.writes.length - begun)) / 8),
  );
  const { end } = await runWalk(startWalk({ from: 0, every: 3 }), {
    signal: new AbortController().signal,
    mirrors: async () => mirrors,
    probe: (seq) => fsckAt(history, seq),
    keep: async () => {},
  });
  assert.deepEqual(end, {
    kind: 'condemned',
    condemned: mirrors.filter((seq, i) => i % 3 === 0 && seq >= badSeq)[0],
    firstBad: mirrors.find((seq) => seq >= badSeq),
    restoreTo: mirrors.findLast((seq) => seq < badSeq),
  });
});

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
  await guest(live, program);
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
