// A real ext4 with a long history in which one write is bad: the search with fsck names exactly that write, within its bound,
// one probe at a time and two at once; the walk goes back to the last good mirror.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { SeededRandom } from '@midmirror/basis';
import { probesMade, startBisect } from '../core/bisect.ts';
import type { Verdict } from '../core/verdict.ts';
import { startWalk } from '../core/walk.ts';
import { runSearch } from '../loops/search-loop.ts';
import { runWalk } from '../loops/walk-loop.ts';
import { agedDisk } from './aged-disk.ts';
import { probing } from './moment.ts';
import { MemoryDisk, RecordedDisk, serving } from './recorded-disk.ts';

const SEED = 20_261_127;

let folder: string;
let disk: RecordedDisk;
let begun: number;
let quietBytes: number;

before(async () => {
  folder = mkdtempSync(`${tmpdir()}/mim-`);
  ({ disk, begun, quietBytes } = await agedDisk(folder));
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
    assert.deepEqual(end, { kind: 'found', lastGood: badSeq - 1, firstBad: badSeq }, `seed ${SEED}`);
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
