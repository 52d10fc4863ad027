// Tapes over HTTP, with an archiver that the test plays: what it is asked, what people see, and the bytes of an archive.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { framed, unframed } from '@midmirror/api';
import { MidmirrorError } from '@midmirror/basis';
import { answer, type Bus } from '@midmirror/bus';
import { type Catalog, type TapeArchiveRow, toNs } from '@midmirror/catalog';
import type { RequestName, Requests, ToldTapeJob } from '@midmirror/events';
import { printTime } from '@midmirror/point';
import { limits } from '../config.ts';
import { diskOf, pointOf, SIZE, TIME_NS, until, withConsole } from './console-under-test.ts';

const neighbours = { resolve: () => pointOf(1), disk: () => diskOf(1) };
const SECOND = 1_000_000_000n;
const timeAt = (seq: number): string => printTime(TIME_NS + BigInt(seq) * SECOND);

function rowOf(id: string, seq: number, more: Partial<TapeArchiveRow> = {}): TapeArchiveRow {
  return {
    ...{ id, name: `db-20231114T221320Z-${id}`, volume_id: 'v1', volume_name: 'db', volume_bytes: SIZE },
    ...{ kind: 'image', seq, time_ns: toNs(TIME_NS + BigInt(seq) * SECOND), until_ns: null },
    ...{ parent_id: null, chain: '[]', created_ns: toNs(TIME_NS + 3600n * SECOND), layers: '["zstd"]' },
    ...{ library: 'file:///tapes', bytes: 1000 + seq, sha256: 'ab'.repeat(32), cause: 'requested' },
    ...{ members: '[{"name":"manifest.json","bytes":9,"sha256":"00"}]', verified_ns: null, compared: 0 },
    lost_reason: null,
    ...more,
  };
}

const differenceOf = (id: string, seq: number, chain: string[], more: Partial<TapeArchiveRow> = {}) =>
  rowOf(id, seq, { kind: 'difference', parent_id: chain[0]!, chain: JSON.stringify(chain), ...more });

async function store(catalog: Catalog, rows: TapeArchiveRow[]): Promise<void> {
  await catalog.db.insertInto('tape_archive').values(rows).execute();
  await catalog.db
    .insertInto('tape_part')
    .values(
      rows.flatMap(({ id }) =>
        [1, 2].map((part) => ({
          ...{ archive_id: id, part, barcode: `A0000${part}`, position: 3, bytes: 500, sha256: 'cd' },
          ...{ offset_bytes: (part - 1) * 500, is_last: part - 1, written_at: '2026-11-27T10:00:00Z' },
        })),
      ),
    )
    .execute();
}

/** Two images and two differences: a3 is good, a4's parent is lost. */
const shelf = (): TapeArchiveRow[] => [
  rowOf('a1', 10),
  rowOf('a2', 20, { lost_reason: 'A00002 is gone', verified_ns: toNs(TIME_NS), compared: 1 }),
  differenceOf('a3', 30, ['a1']),
  differenceOf('a4', 40, ['a2']),
  differenceOf('a5', 50, ['a9', 'a1']),
  rowOf('b1', 5, { volume_id: 'v0', volume_name: 'gone' }),
];

interface Shown {
  archive: string;
  state: string;
  available: boolean;
  why: string | null;
  barcodes: string[];
  verified: string | null;
  compared: boolean;
  time: string;
}

const json = async <T>(response: Promise<Response>, status = 200): Promise<T> => {
  const got = await response;
  const body = await got.text();
  assert.equal(got.status, status, body);
  return JSON.parse(body) as T;
};

test('archives are listed by volume, newest first, with what is wrong with them or those they need', async () => {
  await withConsole(neighbours, async ({ catalog, get }) => {
    await store(catalog, shelf());
    const { tapes } = await json<{ tapes: Shown[] }>(get('/tapes?volume=db'));
    assert.deepEqual(
      tapes.map(({ archive, state, available, why }) => [archive, state, available, why]),
      [
        ['a5', 'whole', false, 'it needs archive a9, which is not known'],
        ['a4', 'whole', false, 'it needs db-20231114T221320Z-a2, which is lost: A00002 is gone'],
        ['a3', 'whole', true, null],
        ['a2', 'lost', false, 'A00002 is gone'],
        ['a1', 'whole', true, null],
      ],
    );
    assert.deepEqual(tapes[2]!.barcodes, ['A00001', 'A00002']);
    assert.equal(tapes[2]!.time, timeAt(30));
    assert.deepEqual([tapes[3]!.verified, tapes[3]!.compared], [printTime(TIME_NS), true]);
    // By id, of a volume that is gone, of all, no more than asked for; an unknown volume is told.
    assert.equal((await json<{ tapes: Shown[] }>(get('/tapes?volume=v1&limit=2'))).tapes.length, 2);
    assert.deepEqual((await json<{ tapes: Shown[] }>(get('/tapes?volume=gone'))).tapes[0]!.archive, 'b1');
    assert.equal((await json<{ tapes: Shown[] }>(get('/tapes'))).tapes.length, 6);
    await json(get('/tapes?volume=nope'), 404);
  });
});

test('one archive is shown by id or whole name, with parts, members, what it needs and what needs it', async () => {
  await withConsole(neighbours, async ({ catalog, get }) => {
    await store(catalog, shelf());
    interface One extends Shown {
      needs: { archive: string; name: string | null }[];
      neededBy: { archive: string }[];
      parts: Record<string, unknown>[];
      members: { name: string }[];
    }
    const one = await json<One>(get('/tapes/db-20231114T221320Z-a1'));
    assert.deepEqual(
      one.neededBy.map(({ archive }) => archive),
      ['a3', 'a5'],
    );
    assert.deepEqual(one.parts[1], {
      ...{ part: 2, barcode: 'A00002', position: 3, offset: 500, bytes: 500, sha256: 'cd' },
      written: '2026-11-27T10:00:00Z',
    });
    assert.equal(one.members[0]!.name, 'manifest.json');
    assert.deepEqual((await json<One>(get('/tapes/a5'))).needs, [
      { archive: 'a9', name: null },
      { archive: 'a1', name: 'db-20231114T221320Z-a1' },
    ]);
    const { detail, hint } = await json<{ detail: string; hint: string }>(get('/tapes/a'), 404);
    assert.match(`${detail} ${hint}`, /no archive "a" .*mim tape list/);
  });
});

test('tapes stand in the timeline of their volume, within its times', async () => {
  await withConsole(neighbours, async ({ catalog, bus, get }) => {
    await store(catalog, shelf());
    answer(bus, 'ingest.status', async () => ({
      ...{ seq: 60, timeNs: TIME_NS.toString(), durableSeq: 60, journalBytesUsed: 0, journalBytesMax: 1 },
      ...{
        segments: 0,
        headExtents: 0,
        headBytes: 0,
        segmentsEvicted: 0,
        state: 'active',
        connections: 0,
        peers: [],
      },
    }));
    answer(bus, 'mapping-index.activity', async () => ({ minutes: [] }));
    const seqs = async (query: string) =>
      (await json<{ tapes: { seq: number }[] }>(get(`/volumes/db/points${query}`))).tapes.map(
        ({ seq }) => seq,
      );
    assert.deepEqual(await seqs(''), [50, 40, 30, 20, 10]);
    assert.deepEqual(await seqs(`?from=${timeAt(20)}&to=${timeAt(40)}`), [40, 30, 20]);
    assert.deepEqual(await seqs('?limit=2'), [50, 40]);
    const { tapes } = await json<{ tapes: unknown[] }>(get('/volumes/db/points?limit=3'));
    assert.deepEqual(tapes[2], {
      ...{ archive: 'a3', name: 'db-20231114T221320Z-a3', kind: 'difference', seq: 30, time: timeAt(30) },
      ...{ bytes: 1030, available: true, why: null },
    });
  });
});

const job: ToldTapeJob = {
  ...{ job: 'j1', task: 'write', volumeId: 'v1', volume: 'db', archive: 'a1', kind: 'image', seq: 10 },
  ...{ timeNs: TIME_NS.toString(), library: 'file:///tapes', cause: 'requested', state: 'running' },
  ...{ createdNs: TIME_NS.toString(), endedNs: null, error: null, progress: null },
};
const time = printTime(TIME_NS);
const shownJob = {
  ...{ job: 'j1', task: 'write', volumeId: 'v1', volume: 'db', archive: 'a1', kind: 'image' },
  ...{ point: { seq: 10, time }, library: 'file:///tapes', cause: 'requested', state: 'running' },
  ...{ created: time, ended: null, error: null, progress: null },
};

/** Answers, and remembers what was asked. */
function play<N extends RequestName>(
  bus: Bus,
  asked: [string, unknown][],
  name: N,
  told: Requests[N]['answer'],
): void {
  answer(bus, name, async (body) => {
    asked.push([name.slice('tape-archiver.'.length), body]);
    return told;
  });
}

test('each call asks the archiver for what it says, and shows its answer with times', async () => {
  await withConsole(neighbours, async ({ bus, get, post, remove }) => {
    const asked: [string, unknown][] = [];
    play(bus, asked, 'tape-archiver.write', { job });
    play(bus, asked, 'tape-archiver.verify', { job: { ...job, task: 'verify' } });
    play(bus, asked, 'tape-archiver.jobs', { jobs: [job] });
    play(bus, asked, 'tape-archiver.cancel', { job: { ...job, state: 'cancelled', endedNs: job.timeNs } });
    play(bus, asked, 'tape-archiver.forget', { archive: 'a1', erasedParts: 1, freedBytes: 9 });
    play(bus, asked, 'tape-archiver.retention', { drops: [], kept: [] });
    play(bus, asked, 'tape-archiver.cartridges', { library: 'file:///tapes', cartridges: [] });
    for (const name of ['add-cartridge', 'protect', 'eject'] as const)
      play(bus, asked, `tape-archiver.${name}`, { library: 'file:///tapes' });
    const imported = { library: 'file:///tapes', cartridges: [], imported: [], known: [], refused: [] };
    play(bus, asked, 'tape-archiver.import', imported);
    play(bus, asked, 'tape-archiver.plan', {
      plan: {
        ...{ kind: 'difference', seq: 10, timeNs: job.timeNs, parent: 'a0', library: 'file:///tapes' },
        ...{ dataBytes: 1, zeroBytes: 2, tarBytes: 3, seconds: null, cartridges: [], lackingBytes: 0 },
      },
    });

    assert.deepEqual(await json(post('/volumes/db/tapes', { kind: 'image', at: 'latest' }), 202), {
      job: shownJob,
    });
    const order = {
      ...{ kind: 'difference', at: 'seq:10', from: 'a0', library: 'file:///x', zstdLevel: 3 },
      ...{ recipients: ['age1x'], barcodes: ['A1', 'A2'] },
    };
    const { plan } = await json<{ plan: Record<string, unknown> }>(
      post('/volumes/db/tapes', { ...order, dryRun: true }),
    );
    assert.deepEqual([plan['point'], plan['parent']], [{ seq: 10, time }, 'a0']);
    await json(post('/tapes/a1/verify', {}), 202);
    assert.deepEqual(await json(get('/tape-jobs?limit=7')), { jobs: [shownJob] });
    assert.deepEqual(await json(get('/tape-jobs/j1')), { job: shownJob });
    assert.deepEqual(await json(remove('/tape-jobs/j1')), {
      job: { ...shownJob, state: 'cancelled', ended: time },
    });
    assert.deepEqual(await json(remove('/tapes/a1?erase=true')), {
      ...{ archive: 'a1', erasedParts: 1, freedBytes: 9 },
    });
    await json(post('/volumes/db/tape-retention?dryRun=true', {}));
    await json(get('/cartridges?library=file:///x'));
    await json(post('/cartridges', { barcode: 'A1', capacityBytes: 1024 }), 201);
    await json(post('/cartridges/A1/eject?library=file:///x', { vaultPlace: 'shelf 3' }));
    await json(post('/cartridges/A1/protect', {}));
    await json(post('/cartridges/A1/unprotect', {}));
    await json(post('/cartridges/import', { barcodes: ['A1'] }));
    await json(post('/cartridges/import', {}));
    const library = 'file:///x';
    assert.deepEqual(asked, [
      [
        'write',
        {
          ...{ volumeId: 'v1', kind: 'image', at: 'latest', from: null, library: null, zstdLevel: null },
          ...{ recipients: [], barcodes: null },
        },
      ],
      ['plan', { volumeId: 'v1', ...order }],
      ['verify', { archive: 'a1' }],
      ['jobs', { job: null, limit: 7 }],
      ['jobs', { job: 'j1', limit: 1 }],
      ['cancel', { job: 'j1' }],
      ['forget', { archive: 'a1', erase: true, force: false }],
      ['retention', { volumeId: 'v1', dryRun: true }],
      ['cartridges', { library }],
      ['add-cartridge', { library: null, barcode: 'A1', capacityBytes: 1024, overwriteForeign: false }],
      ['eject', { library, barcode: 'A1', vaultPlace: 'shelf 3' }],
      ['protect', { library: null, barcode: 'A1', writeProtected: true }],
      ['protect', { library: null, barcode: 'A1', writeProtected: false }],
      ['import', { library: null, barcodes: ['A1'] }],
      ['import', { library: null, barcodes: null }],
    ]);

    for (const body of [{ at: 'latest' }, { kind: 'image' }, { kind: 'movie', at: 'latest' }])
      await json(post('/volumes/db/tapes', body), 400);
    await json(post('/volumes/db/tapes', { kind: 'image', at: 'latest', zstdLevel: 20 }), 400);
    await json(post('/volumes/db/tapes', { kind: 'image', at: 'latest', level: 2 }), 400);
    await json(post('/volumes/nope/tapes', { kind: 'image', at: 'latest' }), 404);
    await json(post('/cartridges', { barcode: 'A1' }), 400);
  });
});

test('a restore from tape is planned for a point or an archive; nobody who answers is told', async () => {
  await withConsole(neighbours, async ({ bus, get }) => {
    assert.match(
      (await json<{ detail: string }>(get('/tape-restore?volume=db&at=latest'), 503)).detail,
      /nobody answers/,
    );
    const chain = [
      {
        ...{ archive: 'a1', name: 'db-a1', kind: 'image' as const, seq: 10, timeNs: job.timeNs, bytes: 5 },
        ...{ layers: ['age'], sha256: null, barcodes: ['A1'] },
      },
    ];
    const barcodes = [
      { barcode: 'A1', library: 'file:///x', location: 'vault' as const, vaultPlace: 'shelf 3' },
    ];
    const asked: unknown[] = [];
    answer(bus, 'tape-archiver.restore-plan', async (body) => {
      asked.push(body);
      if (body.at === 'seq:11') {
        throw new MidmirrorError('point-unavailable', 'seq:11 is on no tape', {
          hint: 'before it --at seq:10',
        });
      }
      const volume = { id: 'v1', name: 'db', sizeBytes: SIZE };
      const passedOver = { name: 'db-a2', timeNs: job.timeNs, lacks: 'a9 (lost)' };
      return { volume, seq: 10, timeNs: job.timeNs, chain, barcodes, passedOver };
    });
    const { timeNs: _, ...shown } = chain[0]!;
    assert.deepEqual(await json(get('/tape-restore?volume=db&at=seq:10')), {
      volume: { id: 'v1', name: 'db', sizeBytes: SIZE },
      point: { seq: 10, time },
      chain: [{ ...shown, time }],
      barcodes,
      passedOver: { name: 'db-a2', time, lacks: 'a9 (lost)' },
    });
    await json(get('/tape-restore?volume=db&archive=a1'));
    const { hint } = await json<{ hint: string }>(get('/tape-restore?volume=db&at=seq:11'), 410);
    assert.equal(hint, 'before it --at seq:10');
    for (const query of ['volume=db', 'volume=db&at=seq:10&archive=a1', 'at=seq:10'])
      await json(get(`/tape-restore?${query}`), 400);
    assert.deepEqual(asked.slice(0, 2), [
      { volume: 'db', at: 'seq:10', archive: null },
      { volume: 'db', at: null, archive: 'a1' },
    ]);
  });
});

/** A tape process: what it does with a connection, and the tokens that it was sent. */
async function withTape(
  serve: (socket: Socket) => void,
  act: (port: number, tokens: string[]) => Promise<void>,
): Promise<void> {
  const tokens: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('data', (line) => {
      tokens.push(line.toString());
      serve(socket);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await act((server.address() as AddressInfo).port, tokens);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

const played = (bus: Bus, port: number): void =>
  void answer(bus, 'tape-archiver.read', async ({ archive }) => ({
    ...{ host: '127.0.0.1', port, token: `token of ${archive}` },
  }));

test('the bytes of an archive pass through as they are, with the token, and their end', async () => {
  const bytes = Buffer.from(Array.from({ length: 3 << 20 }, (_, i) => i * 7));
  const frames = await collect(
    framed(
      (async function* () {
        yield bytes;
      })(),
    ),
  );
  await withTape(
    (socket) => void socket.end(frames),
    (port, tokens) =>
      withConsole(neighbours, async ({ catalog, bus, get }) => {
        await store(catalog, shelf());
        played(bus, port);
        const response = await get('/tapes/db-20231114T221320Z-a1/bytes');
        assert.equal(response.status, 200);
        assert.ok((await collect(unframed(response.body!))).equals(bytes));
        assert.deepEqual(tokens, ['token of a1\n']);
        await json(get('/tapes/nope/bytes'), 404);
      }),
  );
});

test('a tape process that is lost in the middle leaves an answer without an end', async () => {
  for (const lose of [(socket: Socket) => socket.resetAndDestroy(), (socket: Socket) => socket.end()])
    await withTape(
      (socket) => void socket.write(Buffer.from([0, 0, 0, 9, 1, 2, 3]), () => lose(socket)),
      (port) =>
        withConsole(neighbours, async ({ catalog, bus, get }) => {
          await store(catalog, shelf());
          played(bus, port);
          await assert.rejects(get('/tapes/a1/bytes').then((response) => collect(unframed(response.body!))));
        }),
    );
});

test('no tape process is an error status; so is one reading too many; a client that leaves lets go', async () => {
  let closed = 0;
  await withTape(
    (socket) => {
      socket.once('close', () => (closed += 1));
      socket.write(Buffer.alloc(4));
    },
    (port) =>
      withConsole(neighbours, async ({ catalog, bus, get }) => {
        await store(catalog, shelf());
        const place = { port: 1 };
        answer(bus, 'tape-archiver.read', async () => ({ host: '127.0.0.1', token: 't', ...place }));
        const { detail, hint } = await json<{ detail: string; hint: string }>(get('/tapes/a1/bytes'), 503);
        assert.match(`${detail} ${hint}`, /127\.0\.0\.1:1 is not reached.*MIM_TAPE_HOST/);
        place.port = port;
        const leaving = new AbortController();
        for (let i = 0; i < limits.tapeReadsMax; i += 1)
          assert.equal((await get('/tapes/a1/bytes', leaving.signal)).status, 200);
        assert.match(
          (await json<{ detail: string }>(get('/tapes/a1/bytes'), 503)).detail,
          /being read already/,
        );
        leaving.abort();
        await until(() => closed === limits.tapeReadsMax);
      }),
  );
});

test('a client that leaves before the bytes begin takes no place', async () => {
  let closed = 0;
  await withTape(
    (socket) => {
      socket.once('close', () => (closed += 1));
      socket.write(Buffer.alloc(4));
    },
    (port) =>
      withConsole(neighbours, async ({ catalog, bus, get }) => {
        await store(catalog, shelf());
        const [asked, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
        let waiting = 0;
        answer(bus, 'tape-archiver.read', async () => {
          waiting += 1;
          if (waiting === limits.tapeReadsMax) asked.resolve();
          await goOn.promise;
          return { host: '127.0.0.1', token: 't', port };
        });
        const leaving = new AbortController();
        const gone = Array.from({ length: limits.tapeReadsMax }, () =>
          assert.rejects(get('/tapes/a1/bytes', leaving.signal)),
        );
        await asked.promise;
        leaving.abort();
        await Promise.all(gone);
        await pause(50); // until the server has heard of it
        goOn.resolve();
        await until(() => closed === limits.tapeReadsMax);
        const response = await get('/tapes/a1/bytes');
        assert.equal(response.status, 200);
        await response.body!.cancel();
      }),
  );
});

/** Waits until it has been the same for a while. */
async function settled(count: () => number): Promise<number> {
  for (let before = -1; before !== count(); ) {
    before = count();
    await pause(300);
  }
  return count();
}

test('no more is taken from the tape process than the client takes; and a stop does not wait for one that rests', async () => {
  const total = 256 << 20;
  let given = 0;
  const give = async (socket: Socket): Promise<void> => {
    const frame = Buffer.alloc(4 + (1 << 20));
    frame.writeUInt32BE(1 << 20);
    for (; given < total && !socket.destroyed; given += 1 << 20)
      await new Promise<void>((resolve) => void socket.write(frame, () => resolve()));
  };
  await withTape(
    (socket) => void give(socket),
    (port) =>
      withConsole(neighbours, async ({ catalog, bus, get }) => {
        await store(catalog, shelf());
        played(bus, port);
        const reader = (await get('/tapes/a1/bytes')).body!.getReader();
        let taken = 0;
        const take = async (bytes: number): Promise<void> => {
          while (taken < bytes) taken += (await reader.read()).value!.length;
        };
        await take(1 << 20);
        // What two sockets and their streams hold.
        const before = await settled(() => given);
        assert.ok(before < 64 << 20, `${before} bytes were given to one that took ${taken}`);
        await take(before + (16 << 20));
        assert.ok(given > before);
      }),
  );
});
