// The whole road of a check: a bad write at a random place of a long history is found, told, and undone by a restore of
// the last good point.
import assert from 'node:assert/strict';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, withAppliance, withFolder } from '../appliance/appliance-process.ts';

const MIB = 1 << 20;
const SIZE = 4 * MIB;
const SECTOR = 4096;
const SEED = Number(process.env['MONITOR_SEED'] ?? Date.now() % 2 ** 31);

/** Bad once one sector says so; its exit status as `command` has it. */
function program(folder: string): string {
  const path = `${folder}/check.sh`;
  writeFileSync(
    path,
    `#!/bin/sh
nbdcopy "$MIM_MIRROR_URI" "$TMPDIR/disk" || exit 125
if dd if="$TMPDIR/disk" bs=${SECTOR} skip=77 count=1 2>/dev/null | grep -q ENCRYPTED; then
  echo "the sector is bad at $MIM_CHECK_POINT"
  exit 1
fi
`,
  );
  chmodSync(path, 0o755);
  return path;
}

async function history(uri: string, writes: number, badAt: number): Promise<Buffer> {
  const random = new SeededRandom(SEED);
  const client = await connectNbd(uri);
  const good = Buffer.alloc(SIZE);
  for (let seq = 1; seq <= writes; seq += 1) {
    const block = seq === badAt ? 77 : random.below(SIZE / SECTOR - 1);
    const sector = seq !== badAt && block === 77 ? 78 : block;
    const data = Buffer.alloc(SECTOR, seq === badAt ? 'ENCRYPTED' : `write ${seq} `);
    await client.write(sector * SECTOR, data);
    if (seq < badAt) data.copy(good, sector * SECTOR);
  }
  await client.flush();
  await client.close();
  return good;
}

interface Job {
  job: {
    probes: number;
    probesMax: number;
    end: { kind: string; lastGood: { seq: number }; firstBad: { seq: number }; writes: { seq: number }[] };
  };
}

test('bisect names the first bad write within its bound; the last good point is put back', (context) => {
  context.diagnostic(`MONITOR_SEED=${SEED}`);
  return withAppliance({}, async (appliance, folder) => {
    const writes = 1000;
    const badAt = 2 + new SeededRandom(SEED).below(writes - 2);
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const good = await history(appliance.uri('db'), writes, badAt);
    const added = await appliance.mim(
      ...['check', 'add', 'db', 'command', '--name', 'sector', '--program', program(folder)],
    );
    assert.equal(added.status, 0, added.stderr);
    for (const jobs of ['1', '4']) {
      const found = await appliance.json<Job>(
        'bisect',
        'db',
        '--check',
        'sector',
        '--good',
        'seq:0',
        '--jobs',
        jobs,
      );
      const { end, probes } = found.job;
      assert.equal(end.kind, 'found');
      assert.deepEqual([end.lastGood.seq, end.firstBad.seq], [badAt - 1, badAt]);
      if (jobs === '1') assert.ok(probes <= Math.ceil(Math.log2(writes)) + 2, `${probes} probes`);
      assert.ok(end.writes.some(({ seq }) => seq === badAt));
    }
    const words = await appliance.mim('bisect', 'db', '--check', 'sector');
    assert.match(words.stdout, new RegExp(`write ${badAt} is the first that sector condemns`));
    assert.match(words.stdout, /before {2}[0-9a-f]{64}\n {4}after {3}454e43525950544544/);
    const target = `${folder}/back.img`;
    const restored = await appliance.mim('restore', 'db', '--last-good', '--to', target);
    assert.equal(restored.status, 0, restored.stderr);
    assert.ok(readFileSync(target).equals(good));
    const points = await appliance.mim('points', 'db', '--limit', '100');
    assert.match(points.stdout, /sector +bad +write/);
    const shown = await appliance.mim('show', 'db');
    assert.match(shown.stdout, new RegExp(`sector +command +on request +notify +write ${badAt - 1}`));
    const clones = await appliance.get<{ clones: unknown[] }>('/clones');
    assert.deepEqual(clones.clones, []);
  });
});

test('a walk certifies snapshots, turns round at a bad one, and goes on after the monitor was killed', () =>
  withFolder(async (folder) => {
    let appliance = await ApplianceProcess.start(`${folder}/data`);
    try {
      await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
      const client = await connectNbd(appliance.uri('db'));
      const seqs: number[] = [];
      for (let i = 1; i <= 6; i += 1) {
        const bad = i === 5;
        await client.write((bad ? 77 : i) * SECTOR, Buffer.alloc(SECTOR, bad ? 'ENCRYPTED' : `day ${i}`));
        await client.flush();
        await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
        seqs.push(i);
      }
      await client.close();
      const path = program(folder);
      await appliance.post('/volumes/db/checks', {
        ...{ name: 'sector', kind: 'command', settings: { program: path }, onCondemned: 'clone' },
      });
      const { job } = await appliance.post<{ job: { job: string } }>('/volumes/db/certifications', {
        check: 'sector',
      });
      appliance.kill();
      await appliance.ended;
      appliance = await ApplianceProcess.start(`${folder}/data`);
      let now: { status: string; end: Job['job']['end'] | null } = { status: 'queued', end: null };
      while (now.status === 'queued' || now.status === 'running')
        now = (await appliance.get<{ job: typeof now }>(`/check-jobs/${job.job}`)).job;
      assert.equal(now.end?.kind, 'condemned', JSON.stringify(now));
      assert.deepEqual([now.end?.lastGood.seq, now.end?.firstBad.seq], [4, 5]);
      const { clones } = await appliance.get<{ clones: { name: string }[] }>('/clones');
      assert.deepEqual(
        clones.map(({ name }) => name),
        ['rescue-db-4'],
      );
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
