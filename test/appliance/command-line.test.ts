// The command line and the HTTP API as people and scripts use them: answers, errors that say what to do, exit
// statuses, and everything still there after a restart.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, run, withAppliance, withFolder } from './appliance-process.ts';

const SIZE = 8 << 20;

async function writeBlocks(uri: string, blocks: readonly [number, number][]): Promise<void> {
  const client = await connectNbd(uri);
  for (const [block, fill] of blocks) await client.write(block * 4096, Buffer.alloc(4096, fill));
  await client.flush();
  await client.close();
}

async function fails(
  appliance: ApplianceProcess,
  status: number,
  message: RegExp,
  ...args: string[]
): Promise<void> {
  const ran = await appliance.mim(...args);
  assert.equal(ran.status, status, `mim ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
  assert.match(ran.stderr, message);
}

interface Point {
  seq: number;
  time: string;
  distanceMs: number | null;
}

test('a day of a volume: create, mark, rewind, compare, clone, sync, delete', () =>
  withAppliance({}, async (appliance, folder) => {
    const made = await appliance.mim('volume', 'create', 'db', '--size', '8MiB', '--policy', 'keepDaily=3');
    assert.match(made.stdout, /^Volume db, 8 MiB, is ready\. Connect to nbd:\/\//);
    await writeBlocks(appliance.uri('db'), [
      [0, 1],
      [1, 2],
    ]);
    const mark = await appliance.json<Point>('mark', 'db', 'before-upgrade');
    assert.equal(mark.seq, 2);
    const quiet = Date.now();
    await new Promise((resolve) => setTimeout(resolve, 30)); // so that the times asked for lie between the writes
    await writeBlocks(appliance.uri('db'), [
      [0, 9],
      [5, 7],
    ]);

    for (const [at, seq] of [
      ['mark:before-upgrade', 2],
      ['seq:3', 3],
      ['latest', 4],
      [new Date(quiet + 10).toISOString(), 2],
      ['-0s', 4],
      ['0 seconds ago', 4],
    ] as const) {
      const point = await appliance.json<Point>('resolve', 'db', '--at', at);
      assert.equal(point.seq, seq, at);
    }
    const resolved = await appliance.json<Point>('resolve', 'db', '--at', new Date(quiet + 10).toISOString());
    assert.ok(resolved.distanceMs !== null && resolved.distanceMs < 0 && resolved.distanceMs > -60_000);

    const { uri } = await appliance.json<{ uri: string }>('mirror', 'db', '--at', 'mark:before-upgrade');
    assert.equal(uri, appliance.uri('db@seq:2'));
    const mirror = await connectNbd(uri);
    assert.equal((await mirror.read(0, 512))[0], 1);
    await assert.rejects(mirror.write(0, Buffer.alloc(512)), { code: 'conflict' });
    await mirror.close();

    const read = await appliance.mim(
      'read',
      'db',
      '--at',
      'mark:before-upgrade',
      '--offset',
      '4095',
      '--length',
      '3',
    );
    assert.deepEqual([...Buffer.from(read.stdout, 'latin1')], [1, 2, 2]);
    assert.match(read.stderr, /db as of write 2, \d{4}-/);
    const file = await appliance.mim(
      'read',
      'db',
      '--at',
      'latest',
      '--offset',
      '0',
      '--length',
      '8MiB',
      '--output',
      `${folder}/whole`,
    );
    assert.equal(file.status, 0, file.stderr);
    assert.equal(readFileSync(`${folder}/whole`).length, SIZE);

    const changes = await appliance.json<{ extents: { offset: number; length: number }[]; next: null }>(
      'diff',
      'db',
      '--from',
      'mark:before-upgrade',
      '--to',
      'latest',
    );
    assert.deepEqual(changes.extents, [
      { offset: 0, length: 4096 },
      { offset: 20_480, length: 4096 },
    ]);
    assert.equal(changes.next, null);
    const history = await appliance.json<{ versions: { seq: number | null; kind: string; time: string }[] }>(
      'history',
      'db',
      '--offset',
      '0',
      '--length',
      '4096',
    );
    assert.deepEqual(
      history.versions.map(({ seq }) => seq),
      [3, 1, null],
    );

    await appliance.json('clone', 'create', 'db', 'copy', '--at', 'seq:2');
    await writeBlocks(appliance.uri('copy'), [[0, 77]]);
    const live = await connectNbd(appliance.uri('db'));
    assert.equal((await live.read(0, 512))[0], 9, 'the volume does not see what is written to a clone');
    await live.close();

    const moved = await appliance.json<{ toSeq: number; syncs: number }>('sync', 'db', '--close-snapshot');
    assert.equal(moved.toSeq, 4);
    assert.equal(moved.syncs, 2, 'the mark and the clone hold write 2: it is a station');
    await fails(
      appliance,
      3,
      /seq:1 is not a point.*\n.*every write from 4/,
      'resolve',
      'db',
      '--at',
      'seq:1',
    );
    const points = await appliance.json<{
      marks: { available: boolean }[];
      snapshots: { seq: number }[];
      activity: { writes: number }[];
    }>('points', 'db');
    assert.deepEqual(
      points.marks.map(({ available }) => available),
      [true],
    );
    assert.deepEqual(
      points.snapshots.map(({ seq }) => seq),
      [4, 2, 0],
    );
    assert.equal(
      points.activity.reduce((sum, { writes }) => sum + writes, 0),
      4,
    );
    const older = await appliance.json<{ versions: { seq: number | null; fromSeq: number }[] }>(
      'history',
      'db',
      '--offset',
      '0',
      '--length',
      '4096',
    );
    assert.deepEqual(
      older.versions.map(({ fromSeq }) => fromSeq),
      [4, 2, 0],
    );
    const after = await appliance.mim(
      'read',
      'db',
      '--at',
      'mark:before-upgrade',
      '--offset',
      '0',
      '--length',
      '1',
    );
    assert.equal(after.stdout.charCodeAt(0), 1);

    await fails(appliance, 1, /1 clones/, 'volume', 'delete', 'db', '--yes');
    await appliance.json('clone', 'delete', 'copy');
    await fails(appliance, 2, /for good\n.*--yes/, 'volume', 'delete', 'db');
    await appliance.json('volume', 'delete', 'db', '--yes');
    assert.deepEqual(await appliance.json('volume', 'list'), { volumes: [] });
  }));

test('everything is there after a restart, clones with what was written to them', () =>
  withFolder(async (folder) => {
    let appliance = await ApplianceProcess.start(`${folder}/data`);
    try {
      await appliance.json('volume', 'create', 'db', '--size', '8MiB');
      await writeBlocks(appliance.uri('db'), [
        [0, 1],
        [1, 2],
      ]);
      await appliance.json('mark', 'db', 'one');
      await appliance.json('clone', 'create', 'db', 'copy', '--at', 'mark:one');
      await writeBlocks(appliance.uri('copy'), [[1, 50]]);
      await writeBlocks(appliance.uri('db'), [[0, 3]]);
      await appliance.json(
        'volume',
        'policy',
        'db',
        '--set',
        'keepDaily=99',
        'syncAt=0 3 * * *',
        'keepMarks=group',
      );
      const began = Date.now();
      assert.equal(await appliance.stop(), 0);
      assert.ok(Date.now() - began < 10_000, 'it stops within 10 s');
      assert.match(appliance.output, /Stopped\./);

      appliance = await ApplianceProcess.start(`${folder}/data`);
      for (const [name, block, fill] of [
        ['db', 0, 3],
        ['db@mark:one', 0, 1],
        ['copy', 0, 1],
        ['copy', 1, 50],
      ] as const) {
        const client = await connectNbd(appliance.uri(name));
        assert.equal((await client.read(block * 4096, 512))[0], fill, `${name}, block ${block}`);
        await client.close();
      }
      const { policy } = await appliance.json<{ policy: Record<string, unknown> }>('volume', 'show', 'db');
      assert.equal(policy['keepDaily'], 99);
      assert.equal(policy['syncAt'], '0 3 * * *');
      assert.deepEqual(policy['keepMarks'], ['group']);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));

test('wrong input is refused with what was wrong and what to do, and changes nothing', () =>
  withAppliance({}, async (appliance) => {
    await appliance.json('volume', 'create', 'db', '--size', '8MiB');
    await fails(
      appliance,
      2,
      /"\.\.\/x" is not a name for a volume/,
      'volume',
      'create',
      '../x',
      '--size',
      '8MiB',
    );
    await fails(appliance, 2, /multiple of 512/, 'volume', 'create', 'odd', '--size', '1000001');
    await fails(appliance, 2, /"lots" is not a size/, 'volume', 'create', 'odd', '--size', 'lots');
    await fails(appliance, 1, /the name "db" is taken/, 'volume', 'create', 'db', '--size', '8MiB');
    await fails(
      appliance,
      2,
      /policy\.keepDayly/,
      'volume',
      'create',
      'odd',
      '--size',
      '8MiB',
      '--policy',
      'keepDayly=3',
    );
    await fails(appliance, 2, /cron/, 'volume', 'policy', 'db', '--set', 'syncAt=whenever');
    await fails(appliance, 1, /no volume "nothing"\n.*there are: db/, 'volume', 'show', 'nothing');
    await fails(appliance, 2, /"yesterish" is not a point\n.*seq:1234/, 'resolve', 'db', '--at', 'yesterish');
    await fails(appliance, 2, /no zone/, 'resolve', 'db', '--at', '2026-13-41T10:00:00');
    await fails(appliance, 1, /no mark "none"/, 'resolve', 'db', '--at', 'mark:none');
    await fails(appliance, 3, /seq:5 is not a point/, 'resolve', 'db', '--at', 'seq:5');
    await fails(appliance, 3, /is not a point/, 'resolve', 'db', '--at', '2001-01-01T00:00:00Z');
    await fails(
      appliance,
      2,
      /8388608 bytes long/,
      'read',
      'db',
      '--at',
      'latest',
      '--offset',
      '8MiB',
      '--length',
      '1',
    );
    await fails(appliance, 2, /limit/, 'points', 'db', '--limit', 'many');
    await fails(appliance, 2, /unknown command/, 'frobnicate');
    await fails(appliance, 2, /required option '--at/, 'read', 'db', '--offset', '0', '--length', '1');
    await appliance.json('mark', 'db', 'once');
    await fails(appliance, 1, /mark "once" exists already/, 'mark', 'db', 'once');
    await fails(appliance, 2, /not a name for a mark/, 'mark', 'db', 'a b');
    const client = await connectNbd(appliance.uri('db'));
    await fails(appliance, 1, /in use: 1 NBD/, 'volume', 'delete', 'db', '--yes');
    await client.close();
    const { volumes } = await appliance.json<{ volumes: { name: string }[] }>('volume', 'list');
    assert.deepEqual(
      volumes.map(({ name }) => name),
      ['db'],
    );
    const problem = await appliance.mim('--json', 'resolve', 'db', '--at', 'seq:5');
    const { error } = JSON.parse(problem.stderr) as {
      error: { code: string; details: Record<string, unknown> };
    };
    assert.equal(error.code, 'point-unavailable');
    assert.equal(error.details['latestSeq'], 0);
  }));

test('problems over HTTP are problem+json, and OpenAPI lists every call', () =>
  withAppliance({}, async (appliance) => {
    const answer = await fetch(`${appliance.api}/v1/volumes/none`);
    assert.equal(answer.status, 404);
    assert.match(answer.headers.get('content-type') ?? '', /^application\/problem\+json/);
    const body = (await answer.json()) as { code: string; status: number };
    assert.deepEqual([body.code, body.status], ['not-found', 404]);
    const malformed = await fetch(`${appliance.api}/v1/volumes`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"name":',
    });
    assert.equal(malformed.status, 400);
    const extra = await fetch(`${appliance.api}/v1/volumes`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"name":"a","sizeBytes":4096,"colour":"red"}',
    });
    assert.equal(extra.status, 400);
    const { paths } = await appliance.get<{ paths: Record<string, Record<string, unknown>> }>(
      '/openapi.json',
    );
    const calls = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    for (const call of [
      'POST /v1/volumes',
      'GET /v1/volumes',
      'GET /v1/volumes/{v}',
      'DELETE /v1/volumes/{v}',
      'POST /v1/volumes/{v}/marks',
      'POST /v1/volumes/{v}/syncs',
      'GET /v1/volumes/{v}/points',
      'GET /v1/volumes/{v}/resolve',
      'GET /v1/volumes/{v}/bytes',
      'GET /v1/volumes/{v}/changes',
      'GET /v1/volumes/{v}/history',
      'POST /v1/clones',
      'GET /v1/clones/{name}',
      'DELETE /v1/clones/{name}',
    ]) {
      assert.ok(calls.includes(call), call);
    }
  }));

test('a second appliance on the same data, and settings that are wrong, are refused', () =>
  withAppliance({}, async (appliance, folder) => {
    const start = (env: Record<string, string>) =>
      run(process.execPath, ['services/appliance/main.ts'], { env });
    const second = await start({
      MIM_DATA_DIR: `${folder}/data`,
      MIM_NBD_LISTEN: '127.0.0.1:0',
      MIM_API_LISTEN: '127.0.0.1:0',
    });
    assert.equal(second.status, 1);
    assert.match(second.stderr, /data directory .* is in use by process \d+/);
    const rebuild = await appliance.mim('rebuild', '--data-dir', `${folder}/data`);
    assert.equal(rebuild.status, 1);
    assert.match(rebuild.stderr, /is in use/);
    const taken = await start({
      MIM_DATA_DIR: `${folder}/other`,
      MIM_NBD_LISTEN: appliance.nbd.slice(6),
      MIM_API_LISTEN: '127.0.0.1:0',
    });
    assert.equal(taken.status, 1);
    assert.match(taken.stderr, /can't listen for NBD/);
    for (const [name, value, message] of [
      ['MIM_SYNK_INTERVAL_MS', '5', /MIM_SYNK_INTERVAL_MS is not a setting\n?.*\n?.*MIM_SYNC_INTERVAL_MS/],
      ['MIM_SYNC_INTERVAL_MS', 'often', /"often" is not allowed; expected a whole number from 1/],
      ['MIM_NBD_LISTEN', 'here', /"here" is not an address/],
      ['MIM_SEGMENT_BYTES', '1KiB', /MIM_SEGMENT_BYTES/],
    ] as const) {
      const ran = await start({ MIM_DATA_DIR: `${folder}/other`, [name]: value });
      assert.equal(ran.status, 1);
      assert.match(ran.stderr, message);
    }
    const away = await run(process.execPath, [
      'services/mim/main.ts',
      '--api',
      'http://127.0.0.1:1',
      'volume',
      'list',
    ]);
    assert.equal(away.status, 1);
    assert.match(away.stderr, /no appliance answers at http:\/\/127\.0\.0\.1:1.*\n.*npm start/);
  }));

test('over unix sockets, disks and API', () =>
  withFolder(async (folder) => {
    const appliance = await ApplianceProcess.start(`${folder}/data`, {
      MIM_NBD_LISTEN: `unix:${folder}/nbd.sock`,
      MIM_API_LISTEN: `unix:${folder}/api.sock`,
    });
    try {
      const made = await appliance.mim('volume', 'create', 'db', '--size', '8MiB');
      assert.equal(made.status, 0, made.stderr);
      const { uri } = JSON.parse(
        (await appliance.mim('--json', 'mirror', 'db', '--at', 'latest')).stdout,
      ) as { uri: string };
      assert.equal(uri, `nbd+unix:///db@seq:0?socket=${folder}/nbd.sock`);
      const info = await run('nbdinfo', ['--size', uri]);
      assert.equal(info.stdout.trim(), String(SIZE), info.stderr);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  }));
