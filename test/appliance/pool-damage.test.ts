// Files that are damaged, foreign, half-written or gone: what is found is named by file and offset, never served
// (I8); and the catalogue made again from the pool alone shows every point as it was (I7).
import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, run, withFolder } from './appliance-process.ts';
import { checkPoint, Guest, GUEST_BYTES } from './guest.ts';

interface Kept {
  guest: Guest;
  marks: { name: string; seq: number }[];
  snapshots: { snapshot: number; seq: number }[];
  latest: number;
}

function mim(...args: string[]): ReturnType<typeof run> {
  return run(process.execPath, ['services/mim/main.ts', ...args]);
}

/** A volume with a past on both sides of the MIM: snapshots, marks, a clone, a dropped snapshot, a live journal. */
async function makeHistory(data: string): Promise<Kept> {
  const guest = new Guest(new SeededRandom(21));
  const marks: Kept['marks'] = [];
  const appliance = await ApplianceProcess.start(data);
  try {
    await appliance.post('/volumes', { name: 'db', sizeBytes: GUEST_BYTES });
    await guest.connect(appliance.uri('db'));
    for (let round = 0; round < 4; round += 1) {
      await guest.write(40);
      if (round % 2 === 0) marks.push(await appliance.post('/volumes/db/marks', { name: `mark${round}` }));
      await guest.write(15);
      await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
    }
    await appliance.post('/clones', { volume: 'db', at: 'mark:mark0', name: 'copy' });
    const { snapshots } = await appliance.get<{ snapshots: Kept['snapshots'] }>('/volumes/db/points');
    const free = snapshots.filter(({ seq }) => seq !== 0 && !marks.some((mark) => mark.seq === seq))[1]!;
    const dropped = await appliance.mim('snapshot', 'drop', 'db', String(free.snapshot));
    assert.equal(dropped.status, 0, dropped.stderr);
    await guest.write(50);
    marks.push(await appliance.post('/volumes/db/marks', { name: 'newest' }));
    await guest.write(30);
    await guest.disconnect();
    const points = await appliance.get<{ snapshots: Kept['snapshots'] }>('/volumes/db/points');
    assert.equal(await appliance.stop(), 0);
    return { guest, marks, snapshots: points.snapshots, latest: guest.answered };
  } finally {
    appliance.kill();
    await appliance.ended;
  }
}

async function checkKept(appliance: ApplianceProcess, kept: Kept): Promise<void> {
  await checkPoint(appliance.uri('db'), kept.guest, kept.latest);
  for (const { name, seq } of kept.marks) await checkPoint(appliance.uri(`db@mark:${name}`), kept.guest, seq);
  for (const { seq } of kept.snapshots) await checkPoint(appliance.uri(`db@seq:${seq}`), kept.guest, seq);
  await checkPoint(appliance.uri('copy'), kept.guest, kept.marks[0]!.seq);
  const report = await appliance.mim('verify', 'db');
  assert.equal(report.status, 0, report.stdout + report.stderr);
}

function volumeFolder(data: string): string {
  return `${data}/pool/volumes/${readdirSync(`${data}/pool/volumes`)[0]}`;
}

function flipByte(path: string, at: number): void {
  const file = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  byte[0]! ^= 0xff;
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
}

/** The segment that holds the newest writes: its first batch names it (a recycled file's names an older one). */
function newestSegment(folder: string): string {
  const forward = `${folder}/forward`;
  const head = Buffer.alloc(20);
  const used = readdirSync(forward).filter((name) => {
    const file = openSync(`${forward}/${name}`, 'r');
    readSync(file, head, 0, 20, 4096);
    closeSync(file);
    return (
      head.subarray(0, 4).equals(Buffer.from('MIMB')) && head.readUInt32LE(16) === Number(name.slice(7, -4))
    );
  });
  return `${forward}/${used.at(-1)}`;
}

/** Where the data of each batch begins: the formats' own numbers, see libs/journal. */
function dataOffsets(segment: string): number[] {
  const bytes = readFileSync(segment);
  const offsets: number[] = [];
  for (let at = 4096; bytes.subarray(at, at + 4).equals(Buffer.from('MIMB')); ) {
    const data = at + 80 + 24 * bytes.readUInt32LE(at + 48);
    const dataBytes = bytes.readUInt32LE(at + 56);
    if (dataBytes > 0) offsets.push(data);
    at = data + dataBytes;
  }
  return offsets;
}

test('the catalogue is made again from the pool alone', () =>
  withFolder(async (folder) => {
    const data = `${folder}/data`;
    const kept = await makeHistory(data);
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${data}/catalog.db${suffix}`, { force: true });
    await assert.rejects(
      ApplianceProcess.start(data),
      /catalog\.db is gone, and the pool holds 1 volumes[\s\S]*mim rebuild --data-dir/,
    );
    const rebuilt = await mim('rebuild', '--data-dir', data);
    assert.equal(rebuilt.status, 0, rebuilt.stdout + rebuilt.stderr);
    assert.match(rebuilt.stdout, /Volume db: the MIM at write 220/);
    let appliance = await ApplianceProcess.start(data);
    try {
      await checkKept(appliance, kept);
      // It goes on: writes, syncs, and another rebuild over a catalogue that is there.
      await kept.guest.connect(appliance.uri('db'));
      await kept.guest.write(30);
      await kept.guest.disconnect();
      await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
      kept.latest = kept.guest.answered;
      await checkKept(appliance, kept);
      assert.equal(await appliance.stop(), 0);
      const again = await mim('--json', 'rebuild', '--data-dir', data);
      assert.equal(again.status, 0, again.stderr);
      const { previous } = JSON.parse(again.stdout) as { previous: string };
      assert.ok(existsSync(previous), 'the old catalogue is kept');
      appliance = await ApplianceProcess.start(data);
      await checkKept(appliance, kept);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));

for (const place of ['sync:saved', 'sync:switched', 'sync:applied', 'sync:told']) {
  test(`the catalogue is lost with a sync cut off at ${place}`, () =>
    withFolder(async (folder) => {
      const data = `${folder}/data`;
      const kept = await makeHistory(data);
      const doomed = await ApplianceProcess.start(data, { MIM_TEST_CRASH_AT: place });
      await doomed.post('/volumes/db/syncs', {}).catch(() => {}); // it dies of it
      assert.equal(await doomed.ended, null);
      for (const suffix of ['', '-wal', '-shm']) rmSync(`${data}/catalog.db${suffix}`, { force: true });
      const rebuilt = await mim('rebuild', '--data-dir', data);
      assert.equal(rebuilt.status, 0, rebuilt.stdout + rebuilt.stderr);
      const appliance = await ApplianceProcess.start(data);
      try {
        await checkKept(appliance, kept);
      } finally {
        appliance.kill();
        await appliance.ended;
      }
    }));
}

test('damaged data is found by reads and by verify, and is never served', () =>
  withFolder(async (folder) => {
    const data = `${folder}/data`;
    const kept = await makeHistory(data);
    const volume = volumeFolder(data);
    // Sealed by a clean restart first: what is damaged then is a closed segment, not a torn end.
    const sealing = await ApplianceProcess.start(data);
    assert.equal(await sealing.stop(), 0);
    const segment = newestSegment(volume);
    for (const at of dataOffsets(segment)) flipByte(segment, at);
    const object = `${volume}/backward/${readdirSync(`${volume}/backward`).sort().at(-1)}`;
    flipByte(object, 4096 + 100);
    const appliance = await ApplianceProcess.start(data);
    try {
      const client = await connectNbd(appliance.uri('db'));
      const expected = kept.guest.image(kept.latest);
      let refused = 0;
      for (let at = 0; at < GUEST_BYTES; at += 16_384) {
        try {
          assert.ok(
            (await client.read(at, 16_384)).equals(expected.subarray(at, at + 16_384)),
            'never wrong data',
          );
        } catch (error) {
          if ((error as { code?: string }).code !== 'io') throw error;
          refused += 1;
        }
      }
      await client.close();
      assert.ok(refused >= 1, 'what is damaged is refused with EIO');
      const report = await appliance.mim('--json', 'verify', 'db');
      assert.equal(report.status, 1);
      const { problems } = JSON.parse(report.stdout) as { problems: { where: string; what: string }[] };
      assert.ok(
        problems.some(({ where, what }) => where.startsWith(`${segment} at `) && /checksum/.test(what)),
        JSON.stringify(problems),
      );
      assert.ok(
        problems.some(({ where }) => where.startsWith(`${object} at 4096`)),
        JSON.stringify(problems),
      );
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));

test('foreign, half-written and unknown files', () =>
  withFolder(async (folder) => {
    const data = `${folder}/data`;
    const kept = await makeHistory(data);
    const volume = volumeFolder(data);
    writeFileSync(`${volume}/backward/00009999.obj.new`, 'half an object');
    writeFileSync(`${volume}/forward/readme.txt`, 'not a segment');
    flipByte(`${volume}/mim.state`, 10); // one of two slots
    let appliance = await ApplianceProcess.start(data);
    try {
      assert.ok(!existsSync(`${volume}/backward/00009999.obj.new`), 'a half-written object is removed');
      await checkPoint(appliance.uri('db'), kept.guest, kept.latest);
      const report = await appliance.mim('verify', 'db');
      assert.equal(report.status, 1);
      assert.match(report.stdout, /readme\.txt\n\s+is not a segment/);
      assert.equal(await appliance.stop(), 0);
      rmSync(`${volume}/forward/readme.txt`);

      // A volume of a newer format is refused by name; the appliance serves the others.
      const text = JSON.stringify({ format: 7, id: 'x', name: 'db', sizeBytes: 4096 });
      writeFileSync(`${volume}/volume.json`, text);
      appliance = await ApplianceProcess.start(data);
      assert.match(
        appliance.output,
        /volume db can't be opened: .*volume\.json has format 7; this Midmirror reads format 1/,
      );
      const listed = await appliance.json<{ volumes: { state: string; problem: { detail: string } }[] }>(
        'volume',
        'list',
      );
      assert.equal(listed.volumes[0]!.state, 'broken');
      await appliance.json('volume', 'create', 'other', '--size', '1MiB');
      const client = await connectNbd(appliance.uri('other'));
      await client.close();
      assert.equal(await appliance.stop(), 0);

      writeFileSync(`${data}/catalog.db`, Buffer.alloc(8192, 0x41));
      await assert.rejects(
        ApplianceProcess.start(data),
        /catalog\.db is not a sound catalogue[\s\S]*mim rebuild/,
      );
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));

test('a damaged index page fails the reads that need it, verify names it, and the pool makes it again', () =>
  withFolder(async (folder) => {
    const data = `${folder}/data`;
    const kept = await makeHistory(data);
    const catalog = new DatabaseSync(`${data}/catalog.db`);
    const backward = 'run_id in (select id from run where side = ?)';
    const { changes } = catalog
      .prepare(`update pel_page set page = substr(page, 1, length(page) - 1) where ${backward}`)
      .run('backward');
    catalog.close();
    assert.ok(changes > 0, 'there were pages to damage');
    let appliance = await ApplianceProcess.start(data);
    try {
      const oldest = kept.snapshots.reduce((a, b) => (a.seq < b.seq ? a : b));
      const client = await connectNbd(appliance.uri(`db@seq:${oldest.seq}`));
      await assert.rejects(client.read(0, 1 << 20), { code: 'io' });
      await client.close();
      const report = await appliance.mim('verify', 'db');
      assert.equal(report.status, 1);
      assert.match(report.stdout, /index run \d+ \(object \d+\): the page at address \d+ is damaged/);
      // What does not need the page goes on.
      await checkPoint(appliance.uri('db'), kept.guest, kept.latest);
      await checkPoint(appliance.uri('db@mark:newest'), kept.guest, kept.marks.at(-1)!.seq);
      assert.equal(await appliance.stop(), 0);
      const made = await mim('rebuild', '--index', '--data-dir', data);
      assert.equal(made.status, 0, made.stdout + made.stderr);
      assert.match(made.stdout, /^Volume db: \d+ runs with \d+ extents\.\nThe index is made\./);
      appliance = await ApplianceProcess.start(data);
      await checkKept(appliance, kept);
      assert.equal(await appliance.stop(), 0);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
