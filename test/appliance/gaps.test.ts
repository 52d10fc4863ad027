// Gaps on a real appliance, by command line, HTTP and NBD: what is refused, what stays, and what restarts and a rebuild
// leave of it.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, run, withFolder } from './appliance-process.ts';

const BLOCK = 4096;

interface Gap {
  number: number;
  fromSeq: number;
  fromTime: string;
  toSeq: number | null;
  toTime: string | null;
  reason: string | null;
}

interface Points {
  gaps: Gap[];
  marks: { name: string; available: boolean }[];
  snapshots: { snapshot: number; seq: number; available: boolean; reason: string }[];
}

async function write(appliance: ApplianceProcess, blocks: readonly [number, number][]): Promise<void> {
  const client = await connectNbd(appliance.uri('db'));
  for (const [block, fill] of blocks) await client.write(block * BLOCK, Buffer.alloc(BLOCK, fill));
  await client.flush();
  await client.close();
}

interface Problem {
  code: string;
  detail: string;
  hint: string;
}

/** That a past point is refused by every way to it, naming both ends. */
async function refused(appliance: ApplianceProcess, at: string, hint: RegExp): Promise<void> {
  const text = encodeURIComponent(at);
  const ask = async (path: string, body?: object): Promise<void> => {
    const post = {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    };
    const answer = await fetch(`${appliance.api}/v1${path}`, body === undefined ? {} : post);
    const problem = (await answer.json()) as Problem;
    assert.equal(answer.status, 410, `${path}: ${JSON.stringify(problem)}`);
    assert.match(problem.detail, /lies in gap \d+ of volume "db"/);
    assert.match(problem.hint, hint);
  };
  await ask(`/volumes/db/resolve?at=${text}`);
  await ask(`/volumes/db/bytes?at=${text}&offset=0&length=512`);
  await ask(`/volumes/db/changes?from=${text}&to=seq:2`);
  await ask(`/volumes/db/changes?from=seq:2&to=${text}`);
  await ask('/clones', { volume: 'db', at, name: 'never' });
  await ask('/volumes/db/syncs', { upTo: at });
  await assert.rejects(connectNbd(appliance.uri(`db@${at}`)), { code: 'not-found' });
  const kept = await connectNbd(appliance.uri('db@seq:2'));
  await kept.close();
}

async function resolves(appliance: ApplianceProcess, at: string, seq: number): Promise<void> {
  const path = `/volumes/db/resolve?at=${encodeURIComponent(at)}`;
  assert.equal((await appliance.get<{ seq: number }>(path)).seq, seq, at);
}

async function points(appliance: ApplianceProcess): Promise<Points> {
  return await appliance.get<Points>('/volumes/db/points');
}

async function digests(appliance: ApplianceProcess, name: string, body: object): Promise<Response> {
  return await fetch(`${appliance.api}/v1/volumes/${name}/digests`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
}

function sha256(block: Uint8Array): string {
  return createHash('sha256').update(block).digest('hex');
}

test('a gap takes its moments away and nothing else, over restarts, syncs and a rebuild', () =>
  withFolder(async (folder) => {
    const data = `${folder}/data`;
    let appliance = await ApplianceProcess.start(data);
    try {
      await appliance.json('volume', 'create', 'db', '--size', '8MiB');
      await write(appliance, [[0, 1]]);
      await appliance.post('/volumes/db/marks', { name: 'before' });
      await write(appliance, [[1, 2]]);
      const { gap } = await appliance.json<{ gap: Gap }>('gap', 'open', 'db', '--reason', 'the link was cut');
      assert.deepEqual(
        [gap.number, gap.fromSeq, gap.toSeq, gap.toTime, gap.reason],
        [1, 2, null, null, 'the link was cut'],
      );
      const again = await appliance.post<{ gap: Gap }>('/volumes/db/gaps', { behindMs: 5 });
      assert.deepEqual(again.gap, gap, 'opened again it is the same');

      // What is open stays open, the live disk goes on, the last point is there.
      const mirror = await connectNbd(appliance.uri('db@seq:1'));
      await write(appliance, [
        [2, 3],
        [0, 4],
      ]);
      assert.equal((await mirror.read(0, 512))[0], 1);
      await mirror.close();
      const atEnds = /the nearest there are: seq:2 \(\d{4}-[^)]*Z, [^)]* before\).*gap close db/;
      for (const at of ['seq:3', 'seq:4', 'latest', '-0s', new Date().toISOString()])
        await refused(appliance, at, atEnds);
      assert.equal((await appliance.mim('mirror', 'db', '--at', 'latest')).status, 3);
      await resolves(appliance, 'seq:2', 2);
      await resolves(appliance, 'mark:before', 1);
      await resolves(appliance, gap.fromTime, 2);
      const mark = await appliance.mim('mark', 'db', 'within');
      assert.equal(mark.status, 1);
      assert.match(mark.stderr, /a gap of volume "db" is open since write 2.*\n.*mim gap close db/);
      const closing = await appliance.mim('sync', 'db', '--close-snapshot');
      assert.equal(closing.status, 3, closing.stderr);
      const shown = await appliance.mim('volume', 'show', 'db');
      assert.match(shown.stdout, /open gap +since write 2, .*the link was cut/);
      const history = await appliance.mim('history', 'db', '--offset', '0', '--length', '4096');
      assert.match(history.stdout, /write 4 .*not available: within gap 1\n.*write 1 .*segment 1\n/);

      // A kill: what was answered is there.
      appliance.kill();
      await appliance.ended;
      appliance = await ApplianceProcess.start(data);
      assert.deepEqual((await points(appliance)).gaps, [gap]);
      await refused(appliance, 'latest', atEnds);

      // The MIM goes by; the last point before the gap stays.
      await appliance.post('/volumes/db/syncs', {});
      const kept = (await points(appliance)).snapshots.find(({ seq }) => seq === 2);
      assert.equal(kept?.reason, 'the last point before gap 1');
      const last = await connectNbd(appliance.uri('db@seq:2'));
      assert.equal((await last.read(0, 512))[0], 1);
      await last.close();
      await refused(appliance, 'seq:4', /seq:2 /);

      // Digests of the live disk within the gap, and of a point.
      const live = await digests(appliance, 'db', {
        at: 'latest',
        offset: 0,
        length: 3 * BLOCK - 512,
        blockBytes: BLOCK,
      });
      assert.equal(live.status, 200);
      const sums = Buffer.from(await live.arrayBuffer());
      const blocks = [Buffer.alloc(BLOCK, 4), Buffer.alloc(BLOCK, 2), Buffer.alloc(BLOCK - 512, 3)];
      assert.equal(sums.toString('hex'), blocks.map(sha256).join(''));
      const past = await digests(appliance, 'db', {
        at: 'seq:2',
        offset: 512,
        length: BLOCK,
        blockBytes: BLOCK,
      });
      assert.equal(past.headers.get('midmirror-seq'), '2');
      const shifted = Buffer.concat([Buffer.alloc(BLOCK - 512, 1), Buffer.alloc(512, 2)]);
      assert.equal(Buffer.from(await past.arrayBuffer()).toString('hex'), sha256(shifted));
      await appliance.post('/clones', { volume: 'db', at: 'seq:2', name: 'copy' });
      const clone = await digests(appliance, 'copy', {
        at: 'latest',
        offset: 0,
        length: BLOCK,
        blockBytes: BLOCK,
      });
      assert.equal(Buffer.from(await clone.arrayBuffer()).toString('hex'), sha256(Buffer.alloc(BLOCK, 1)));
      for (const [name, body, status] of [
        ['db', { at: 'seq:4', offset: 0, length: BLOCK, blockBytes: BLOCK }, 410],
        ['db', { at: 'latest', offset: 1, length: BLOCK, blockBytes: BLOCK }, 400],
        ['db', { at: 'latest', offset: 0, length: BLOCK, blockBytes: 1024 }, 400],
        ['db', { at: 'latest', offset: 0, length: BLOCK, blockBytes: 8 << 20 }, 400],
        ['db', { at: 'latest', offset: 0, length: 9 << 20, blockBytes: BLOCK }, 400],
        ['db', { at: 'latest', offset: 0, length: (1 << 30) + 512, blockBytes: BLOCK }, 400],
        ['copy', { at: 'seq:1', offset: 0, length: BLOCK, blockBytes: BLOCK }, 400],
        ['other', { at: 'latest', offset: 0, length: BLOCK, blockBytes: BLOCK }, 404],
      ] as const)
        assert.equal((await digests(appliance, name, body)).status, status, JSON.stringify([name, body]));

      // Closed: moments are back from its end on, and stay away within.
      const closed = (await appliance.json<{ gap: Gap }>('gap', 'close', 'db')).gap;
      assert.deepEqual({ ...closed, toSeq: null, toTime: null }, gap);
      assert.equal(closed.toSeq, 4);
      assert.deepEqual(await appliance.post('/volumes/db/gaps/close', {}), { gap: null });
      await appliance.post('/volumes/db/marks', { name: 'after' });
      await write(appliance, [[5, 5]]);
      await resolves(appliance, 'seq:4', 4);
      await resolves(appliance, closed.toTime!, 4);
      await resolves(appliance, 'mark:after', 4);
      await resolves(appliance, 'latest', 5);
      await refused(appliance, 'seq:3', /seq:2 .* before\) and seq:4 .* after\)/);
      const middleMs = (Date.parse(closed.fromTime) + Date.parse(closed.toTime!)) / 2;
      await refused(appliance, new Date(middleMs).toISOString(), /seq:2 .* before\) and seq:4 .* after\)/);
      const table = await appliance.mim('points', 'db');
      assert.match(
        table.stdout,
        /GAP +AFTER +FROM +UNTIL +TO +WHY\n1 +write 2 .* write 4 .*the link was cut/,
      );
      assert.match((await appliance.mim('gap', 'list', 'db')).stdout, /^GAP .*\n1 +write 2/);

      // The catalogue is lost: the pool knows.
      assert.equal(await appliance.stop(), 0, appliance.output);
      for (const name of readdirSync(data)) if (name.startsWith('catalog.db')) rmSync(`${data}/${name}`);
      const rebuilt = await run(process.execPath, ['services/mim/main.ts', 'rebuild', '--data-dir', data]);
      assert.equal(rebuilt.status, 0, rebuilt.stderr);
      appliance = await ApplianceProcess.start(data);
      assert.deepEqual((await points(appliance)).gaps, [closed]);
      await refused(appliance, 'seq:3', /seq:2 .* before\) and seq:4 .* after\)/);
      await resolves(appliance, 'seq:4', 4);
      const next = await appliance.post<{ gap: Gap }>('/volumes/db/gaps', {});
      assert.deepEqual([next.gap.number, next.gap.fromSeq], [2, 5]);
      const verified = await appliance.mim('verify', 'db');
      assert.equal(verified.status, 0, verified.stdout);
      const [volume] = readdirSync(`${data}/pool/volumes`);
      const files = readdirSync(`${data}/pool/volumes/${volume}/gaps`);
      assert.equal(files.length, 1, 'each owner leaves one file');
      assert.match(
        readFileSync(`${data}/pool/volumes/${volume}/gaps/${files[0]}`, 'utf8'),
        /the link was cut/,
      );
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));

test('a damaged file of gaps is named and nothing is guessed: not the volume, and not by a rebuild', () =>
  withFolder(async (folder) => {
    const data = `${folder}/data`;
    let appliance = await ApplianceProcess.start(data);
    try {
      await appliance.post('/volumes', { name: 'db', sizeBytes: 8 << 20 });
      await appliance.post('/volumes/db/gaps', {});
      const { status, stdout } = await appliance.mim('verify', 'db');
      assert.equal(status, 0, stdout);
      const [volume] = readdirSync(`${data}/pool/volumes`);
      const gaps = `${data}/pool/volumes/${volume}/gaps`;
      const [name] = readdirSync(gaps);
      const whole = readFileSync(`${gaps}/${name}`);
      writeFileSync(`${gaps}/${name}`, whole.subarray(0, whole.length - 20));
      const verified = await appliance.mim('verify', 'db');
      assert.equal(verified.status, 1);
      assert.match(verified.stdout, /gaps\/\d+\.json can't be read/);
      assert.equal(await appliance.stop(), 0, appliance.output);
      const rebuilt = await run(process.execPath, ['services/mim/main.ts', 'rebuild', '--data-dir', data]);
      assert.match(rebuilt.stdout + rebuilt.stderr, /gaps\/\d+\.json can't be read/);
      writeFileSync(`${gaps}/${name}`, whole);
      await run(process.execPath, ['services/mim/main.ts', 'rebuild', '--data-dir', data]);
      writeFileSync(`${gaps}/${name}`, '');
      appliance = await ApplianceProcess.start(data);
      const shown = await appliance.mim('volume', 'show', 'db');
      assert.equal(shown.status, 1);
      assert.match(shown.stderr, /gaps\/\d+\.json can't be read.*\n.*copy of the pool/);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
