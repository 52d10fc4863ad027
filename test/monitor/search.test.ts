// The monitor's parts on a real appliance: an ext4 on a volume, one bad write among those of its guest. The search with fsck on
// clones names exactly that write; with the change map a verdict is reused where nothing that was read has changed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import {
  type ByteRange,
  type EarlierVerdict,
  findIsolation,
  knownVerdict,
  notMonotone,
  type ProbeResult,
  probe,
  probesMade,
  readyCheck,
  runSearch,
  startBisect,
} from '../../services/monitor/index.ts';
import { type ApplianceProcess, succeed, withAppliance } from '../appliance/appliance-process.ts';
import { MountedDisk } from '../replicator/mounted-disk.ts';

const VOLUME_BYTES = 64 << 20;
const never = new AbortController().signal;

const FIRST = `
import os, sys
os.chdir(sys.argv[1]); os.mkdir('quiet')
for i in range(50): open(f'quiet/{i}', 'w').write('x' * 100)
`;
const LATER = `
import os, sys, random
os.chdir(sys.argv[1]); os.makedirs('busy', exist_ok=True)
for i in range(120):
    with open(f'busy/{random.randint(0, 60)}', 'w') as f:
        f.write('y' * random.randint(1, 30000)); f.flush(); os.fsync(f.fileno())
`;

async function seqOf(appliance: ApplianceProcess): Promise<number> {
  return (await appliance.get<{ seq: number }>('/volumes/db/resolve?at=latest')).seq;
}

/** The number of the guest's last write. */
async function guest(
  appliance: ApplianceProcess,
  folder: string,
  program: string,
  name: string,
): Promise<number> {
  const uri = appliance.uri('db');
  const disk = await MountedDisk.mount(folder, name, uri, { retrying: false, format: name === 'first' });
  try {
    await succeed('python3', ['-c', program, disk.path]);
  } finally {
    await disk.unmount();
  }
  return await seqOf(appliance);
}

/** Where a block of the quiet folder lies. */
async function quietBlock(appliance: ApplianceProcess, folder: string): Promise<number> {
  await succeed('nbdcopy', [appliance.uri('db'), `${folder}/image`]);
  const text = await succeed('debugfs', ['-R', 'blocks /quiet', `${folder}/image`]);
  const size = /^Block size:\s+(\d+)/m.exec(await succeed('dumpe2fs', ['-h', `${folder}/image`]))![1]!;
  return Number(text.trim().split(' ')[0]) * Number(size);
}

test('a bad write to an ext4 is found among those of its guest, on clones', () =>
  withAppliance({}, async (appliance, folder) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: VOLUME_BYTES });
    const good = await guest(appliance, folder, FIRST, 'first');
    await guest(appliance, folder, LATER, 'second');
    const at = await quietBlock(appliance, folder);
    const intruder = await connectNbd(appliance.uri('db'));
    await intruder.write(at + 512, Buffer.alloc(512, 0xee), true);
    const badSeq = await seqOf(appliance);
    const bad = await guest(appliance, folder, LATER, 'third');
    const check = readyCheck('fsck', { fileSystemsMin: 1 });
    const isolation = await findIsolation();
    const results = new Map<number, ProbeResult>();

    const probeAt = async (seq: number, signal: AbortSignal): Promise<ProbeResult> => {
      const name = `probe-${seq}`;
      await appliance.post('/clones', { volume: 'db', at: `seq:${seq}`, name });
      try {
        const moment = { volume: 'db', check: 'fsck', seq, time: '' };
        const mirror = { uri: appliance.uri(name), writable: true };
        const options = { stateDirectory: `${folder}/monitor`, isolation, signal };
        const result = await probe(check.kind, check.settings, { moment, mirror }, options);
        assert.deepEqual(result.left, []);
        results.set(seq, result);
        return result;
      } finally {
        await appliance.delete(`/clones/${name}`);
      }
    };

    const question = { good, bad, goodKnown: false, badKnown: false };
    const { state, end } = await runSearch(startBisect(question), {
      jobs: 1,
      signal: never,
      probe: async (seq, signal) => (await probeAt(seq, signal)).verdict,
      keep: async () => {},
    });
    const told = [...results].map(([seq, { verdict, output }]) => `${seq} ${verdict}: ${output}`).join('\n');
    assert.deepEqual(end, { kind: 'found', lastGood: badSeq - 1, firstBad: badSeq }, told);
    assert.deepEqual(notMonotone(state), []);
    assert.ok(probesMade(state) <= Math.ceil(Math.log2(bad - good)) + 2);

    // A write to where the check has not looked; then one to where it has.
    const { read, verdict } = results.get(bad)!;
    assert.ok(read !== null && read.length > 0);
    const earlier: EarlierVerdict = { seq: bad, verdict, checkKey: await check.checkKey(), read };
    const gap = read.find(
      ({ startBytes, lengthBytes }, i) => startBytes + lengthBytes < (read[i + 1]?.startBytes ?? 0),
    );
    assert.ok(gap !== undefined, 'it has not read all of it');
    const unread = gap.startBytes + gap.lengthBytes;
    const changes = async (from: number, to: number): Promise<ByteRange[]> => {
      const path = `/volumes/db/changes?from=seq:${from}&to=seq:${to}`;
      const answer = await appliance.get<{ extents: { offset: number; length: number }[]; next: null }>(path);
      assert.equal(answer.next, null, 'all of them');
      return answer.extents.map(({ offset, length }) => ({ startBytes: offset, lengthBytes: length }));
    };
    const known = async (): Promise<string | undefined> => {
      const later = { seq: await seqOf(appliance), checkKey: await check.checkKey(), steady: check.steady };
      return (await knownVerdict([earlier], later, changes))?.verdict;
    };
    await intruder.write(unread, Buffer.alloc(512, 1), true);
    assert.equal(await known(), 'bad');
    await intruder.write(at + 512, Buffer.alloc(512, 2), true);
    assert.equal(await known(), undefined);
    await intruder.close();
  }));
