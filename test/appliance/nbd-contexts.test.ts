// Incremental backup over plain NBD, with the clients that people have: what may differ between any two moments, on
// either side of the mirror in the middle, against what the disks hold and what was written.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { type ApplianceProcess, ROOT, run, succeed, withAppliance } from './appliance-process.ts';

const SIZE = 8 << 20;
const SECTOR = 512;
const FAMILY = 'midmirror:changed-since:';
const PHASES = 4;

type Extents = [offset: number, length: number, flags: number][];

/** The disk after each phase of a guest's work, and the sectors that the phase has touched. */
interface Work {
  disks: Buffer[];
  touched: Set<number>[];
}

async function work(appliance: ApplianceProcess): Promise<Work> {
  const random = new SeededRandom(11);
  const client = await connectNbd(appliance.uri('db'));
  const disk = Buffer.alloc(SIZE);
  const done: Work = { disks: [], touched: [] };
  for (let phase = 0; phase < PHASES; phase += 1) {
    const touched = new Set<number>();
    for (let i = 0; i < 25; i += 1) {
      const sectors = 1 + random.below(random.chance(0.2) ? 400 : 24);
      const start = random.below(SIZE / SECTOR - sectors) * SECTOR;
      const length = sectors * SECTOR;
      const kind = random.below(4);
      const data = Buffer.alloc(length, kind < 2 ? 1 + random.below(255) : 0);
      if (kind < 2) await client.write(start, data);
      else if (kind === 2) await client.zeroes(start, length);
      else await client.trim(start, length);
      data.copy(disk, start);
      for (let sector = 0; sector < sectors; sector += 1) touched.add(start / SECTOR + sector);
    }
    await client.flush();
    await appliance.post('/volumes/db/marks', { name: `phase${phase}` });
    done.disks.push(Buffer.from(disk));
    done.touched.push(touched);
    // The first two phases end up on the old side of the MIM, the others stay in the journal.
    if (phase === 1) await appliance.post('/volumes/db/syncs', {});
  }
  await client.close();
  return done;
}

async function askStatus(uri: string, ...args: string[]): Promise<Record<string, Extents>[]> {
  return JSON.parse(
    await succeed('/usr/bin/python3', [`${ROOT}/test/appliance/block_status.py`, uri, ...args]),
  ) as Record<string, Extents>[];
}

function bySector(extents: Extents): number[] {
  const flags: number[] = [];
  for (const [offset, length, flag] of extents) {
    assert.equal(offset, flags.length * SECTOR, 'extents follow each other');
    for (let at = 0; at < length; at += SECTOR) flags.push(flag);
  }
  assert.equal(flags.length * SECTOR, SIZE);
  return flags;
}

function check({ disks, touched }: Work, one: number, other: number, extents: Extents, when: string): void {
  const [first, last] = [Math.min(one, other), Math.max(one, other)];
  for (const [sector, flag] of bySector(extents).entries()) {
    const at = sector * SECTOR;
    const differs = disks[one]!.compare(disks[other]!, at, at + SECTOR, at, at + SECTOR) !== 0;
    if (differs) assert.equal(flag, 1, `${when}: sector ${sector} differs`);
    else if (!touched.slice(first + 1, last + 1).some((sectors) => sectors.has(sector)))
      assert.equal(flag, 0, `${when}: sector ${sector} was not touched`);
  }
}

function checkHoles(disk: Buffer, extents: Extents): void {
  for (const [offset, length, flags] of extents)
    if (flags !== 0) assert.ok(disk.subarray(offset, offset + length).every((byte) => byte === 0));
}

test('what may differ between any two moments, across syncs, together with base:allocation', () =>
  withAppliance({}, async (appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const done = await work(appliance);
    for (let one = 0; one < PHASES; one += 1) {
      for (let other = 0; other < PHASES; other += 1) {
        const name = `${FAMILY}mark:phase${other}`;
        // One of the questions is asked again on the same connection, after a sync that moves both points.
        const sync = one === 3 && other === 2 ? [`${appliance.api}/v1/volumes/db/syncs`] : [];
        const answers = await askStatus(
          appliance.uri(`db@mark:phase${one}`),
          ...sync,
          'base:allocation',
          name,
        );
        assert.equal(answers.length, 1 + sync.length);
        for (const answer of answers) {
          check(done, one, other, answer[name]!, `phase ${one} since ${other}`);
          checkHoles(done.disks[one]!, answer['base:allocation']!);
        }
      }
    }
    // Several contexts on one connection, and none but ours.
    const names = [0, 1, 2].map((phase) => `${FAMILY}mark:phase${phase}`);
    const [answer] = await askStatus(appliance.uri('db@latest'), ...names);
    for (const [other, name] of names.entries())
      check(done, 3, other, answer![name]!, `latest since ${other}`);
  }));

test('nbdinfo shows the map of two writes, and ends with an error when a point is not there', () =>
  withAppliance({}, async (appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const client = await connectNbd(appliance.uri('db'));
    await client.write(0, Buffer.alloc(65_536, 1));
    await client.write(4096, Buffer.alloc(4096, 2));
    await client.trim(16_384, 8192);
    await client.zeroes(4 << 20, 65_536); // nothing was ever there: no difference
    await client.close();
    const map = async (since: string, of: string): Promise<unknown> =>
      (
        JSON.parse(
          await succeed('nbdinfo', ['--json', `--map=${FAMILY}${since}`, appliance.uri(`db@${of}`)]),
        ) as { offset: number; length: number; type: number }[]
      )
        .filter(({ type }) => type !== 0)
        .map(({ offset, length, type }) => [offset, length, type]);
    assert.deepEqual(await map('seq:1', 'seq:3'), [
      [4096, 4096, 1],
      [16_384, 8192, 1],
    ]);
    assert.deepEqual(await map('seq:3', 'seq:1'), await map('seq:1', 'seq:4'));
    assert.deepEqual(await map('seq:2', 'seq:2'), []);
    assert.deepEqual(await map('seq:0', 'seq:1'), [[0, 65_536, 1]]);
    for (const [since, of] of [
      ['seq:999999', 'db@seq:3'],
      ['mark:none', 'db@seq:3'],
      ['nonsense', 'db@seq:3'],
      ['', 'db@seq:3'],
      ['seq:1', 'db'],
    ]) {
      const refused = await run('nbdinfo', [`--map=${FAMILY}${since}`, appliance.uri(of!)]);
      assert.notEqual(refused.status, 0);
      assert.match(refused.stderr, /does not support metadata context "midmirror:changed-since:/);
      assert.equal(refused.stdout, '');
    }
    const why = await run('nbdinfo', [`--map=${FAMILY}seq:999999`, appliance.uri('db@seq:3')], {
      env: { LIBNBD_DEBUG: '1' },
    });
    assert.match(why.stderr, /seq:999999 is not a point that volume "db" still has/);
  }));

test('a mirror advertises the family, a volume and a clone do not', () =>
  withAppliance({}, async (appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    await appliance.post('/clones', { volume: 'db', at: 'latest', name: 'copy' });
    const contexts = async (name: string): Promise<unknown> =>
      (
        JSON.parse(await succeed('nbdinfo', ['--json', appliance.uri(name)])) as {
          exports: { contexts: string[] }[];
        }
      ).exports[0]!.contexts;
    assert.deepEqual(await contexts('db@seq:0'), ['base:allocation', FAMILY]);
    assert.deepEqual(await contexts('db'), ['base:allocation']);
    assert.deepEqual(await contexts('copy'), ['base:allocation']);
  }));

test('the other point is pinned as long as a connection compares with it', () =>
  withAppliance({}, async (appliance) => {
    await appliance.post('/volumes', { name: 'db', sizeBytes: SIZE });
    const client = await connectNbd(appliance.uri('db'));
    for (let fill = 1; fill <= 4; fill += 1) await client.write(0, Buffer.alloc(4096, fill));
    await client.close();
    const open = async (): Promise<number[]> =>
      (await appliance.get<{ mirrors: { seq: number }[] }>('/volumes/db/mirrors')).mirrors
        .map(({ seq }) => seq)
        .sort();
    // It asks, has the volume synced past both points, and asks again.
    const name = `${FAMILY}seq:1`;
    const sync = `${appliance.api}/v1/volumes/db/syncs`;
    const [before, after] = await askStatus(appliance.uri('db@seq:2'), sync, name);
    assert.deepEqual(before![name]!.at(0), [0, 4096, 1]);
    assert.deepEqual(after, before);
    // A connection's end reaches the server on its own time.
    for (let asked = 0; asked < 1000 && (await open()).length > 0; asked += 1);
    assert.deepEqual(await open(), []);
    // The sync has left behind what nobody had open.
    await assert.rejects(appliance.get('/volumes/db/resolve?at=seq:3'), /seq:3 is not a point/);
  }));
