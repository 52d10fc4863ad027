import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { printTime } from '@midmirror/point';
import { limits } from '../config.ts';
import { byteOf, diskOf, pointOf, SIZE, TIME_NS, until, withConsole } from './console-under-test.ts';

interface Problem {
  code: string;
  detail: string;
  hint?: string;
  details?: Record<string, unknown>;
}

const seqOf = (name: string): number => Number(/^db@seq:(\d+)$/.exec(name)![1]);

test('bytes are those of the point that the index names, read over NBD, any byte to any byte', async () => {
  const neighbours = {
    resolve: (at: string) => (at === 'latest' ? pointOf(7) : pointOf(Number(at.slice(4)), -1.5)),
    disk: (name: string) => diskOf(seqOf(name)),
  };
  await withConsole(neighbours, async ({ asked, opened, released, get }) => {
    for (const { at, seq, offset, length } of [
      { at: 'latest', seq: 7, offset: 700, length: 5 },
      { at: 'seq:0', seq: 0, offset: 0, length: 1 },
      { at: 'seq:3', seq: 3, offset: 511, length: (2 << 20) + 3 },
      { at: 'seq:9', seq: 9, offset: SIZE - 1, length: 1 },
    ]) {
      const answer = await get(`/volumes/db/bytes?at=${at}&offset=${offset}&length=${length}`);
      const bytes = Buffer.from(await answer.arrayBuffer());
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-type'), 'application/octet-stream');
      assert.equal(answer.headers.get('midmirror-seq'), String(seq));
      assert.equal(answer.headers.get('midmirror-time'), printTime(TIME_NS + BigInt(seq)));
      assert.equal(answer.headers.get('midmirror-distance-ms'), at === 'latest' ? null : '-1.5');
      assert.equal(bytes.length, length);
      assert.ok(
        bytes.every((byte, i) => byte === byteOf(seq, offset + i)),
        at,
      );
    }
    assert.deepEqual(asked, ['latest', 'seq:0', 'seq:3', 'seq:9']);
    const names = ['db@seq:7', 'db@seq:0', 'db@seq:3', 'db@seq:9'];
    assert.deepEqual(opened, names);
    await until(() => released.length === names.length);
  });
});

test('what the index refuses is refused in its words, and a wrong range before it is asked', async () => {
  const neighbours = {
    resolve: () => {
      throw new MidmirrorError('point-unavailable', 'seq:99 is not kept', {
        hint: 'it has 0 to 7',
        details: { latestSeq: 7 },
      });
    },
    disk: () => diskOf(0),
  };
  await withConsole(neighbours, async ({ asked, opened, get }) => {
    const answer = await get('/volumes/db/bytes?at=seq:99&offset=0&length=512');
    assert.equal(answer.status, 410);
    assert.match(answer.headers.get('content-type')!, /^application\/problem\+json/);
    const { code, detail, hint, details } = (await answer.json()) as Problem;
    assert.deepEqual(
      { code, detail, hint, details },
      {
        ...{ code: 'point-unavailable', detail: 'seq:99 is not kept' },
        ...{ hint: 'it has 0 to 7', details: { latestSeq: 7 } },
      },
    );
    assert.deepEqual(asked, ['seq:99']);
    const beyond = await get(`/volumes/db/bytes?at=latest&offset=${SIZE - 1}&length=2`);
    assert.equal(beyond.status, 400);
    assert.match(((await beyond.json()) as Problem).hint!, new RegExp(`${SIZE} bytes long`));
    assert.equal((await get('/volumes/none/bytes?at=latest&offset=0&length=1')).status, 404);
    assert.deepEqual([asked, opened], [['seq:99'], []]);
  });
});

test('a point that goes between question and reading is asked for again, a bounded number of times', async () => {
  let latest = 5;
  let kept = 7;
  const neighbours = {
    resolve: () => pointOf(latest),
    disk: (name: string) => {
      latest += 1;
      if (seqOf(name) >= kept) return diskOf(seqOf(name));
      throw new MidmirrorError('point-unavailable', `${name} is not kept`, { hint: 'later ones are' });
    },
  };
  await withConsole(neighbours, async ({ opened, get }) => {
    const answer = await get('/volumes/db/bytes?at=latest&offset=1&length=2');
    assert.equal(answer.headers.get('midmirror-seq'), '7');
    assert.deepEqual([...new Uint8Array(await answer.arrayBuffer())], [byteOf(7, 1), byteOf(7, 2)]);
    assert.deepEqual(opened, ['db@seq:5', 'db@seq:6', 'db@seq:7']);
    kept = 1000;
    opened.length = 0;
    const never = await get('/volumes/db/bytes?at=latest&offset=1&length=2');
    assert.equal(never.status, 404);
    assert.match(((await never.json()) as Problem).detail, /is not kept \(later ones are\)/);
    assert.equal(opened.length, limits.readTriesMax);
  });
});

test('a fault before the first byte is an error status that says where to look; a later one breaks off', async () => {
  let reads = 0;
  let failingRead = 1;
  const neighbours = {
    resolve: () => pointOf(1),
    disk: () =>
      diskOf(1, async () => {
        reads += 1;
        if (reads >= failingRead) throw new MidmirrorError('corrupt', 'segment 1 at 4096 fails its checksum');
      }),
  };
  await withConsole(neighbours, async ({ get }) => {
    const answer = await get('/volumes/db/bytes?at=seq:1&offset=0&length=512');
    assert.equal(answer.status, 500);
    const { code, hint } = (await answer.json()) as Problem;
    assert.equal(code, 'io');
    assert.match(hint!, /mim verify db/);
    reads = 0;
    failingRead = 3;
    const broken = await get(`/volumes/db/bytes?at=seq:1&offset=0&length=${SIZE}`);
    assert.equal(broken.status, 200);
    await assert.rejects(broken.arrayBuffer());
  });
});

test('no server to read from is an error of its own, and the next request tries again', async () => {
  let away = true;
  const neighbours = {
    resolve: () => pointOf(1),
    disk: () => diskOf(1),
  };
  await withConsole(neighbours, async ({ get }) => {
    assert.equal((await get('/volumes/db/bytes?at=seq:1&offset=0&length=1')).status, 200);
  });
  await withConsole(
    {
      ...neighbours,
      context: {
        readFrom: () => {
          if (away) throw new MidmirrorError('unavailable', 'no ingest is known');
          return { path: '/nonexistent/nbd.sock' };
        },
      },
    },
    async ({ get }) => {
      for (const words of [/no ingest is known/, /nonexistent/]) {
        const answer = await get('/volumes/db/bytes?at=seq:1&offset=0&length=1');
        assert.equal(answer.status, 503);
        const { code, detail } = (await answer.json()) as Problem;
        assert.equal(code, 'unavailable');
        assert.match(detail, words);
        away = false;
      }
    },
  );
});

test('a client that leaves lets the point go; more readers than allowed are refused, and guests keep theirs', async () => {
  const { promise: held, resolve: letGo } = Promise.withResolvers<void>();
  const neighbours = { resolve: () => pointOf(1), disk: () => diskOf(1, () => held) };
  await withConsole(neighbours, async ({ opened, released, get }) => {
    const leaving = new AbortController();
    const path = '/volumes/db/bytes?at=seq:1&offset=0&length=512';
    const readers = Array.from({ length: limits.readsMax }, (_, i) =>
      get(path, i === 0 ? leaving.signal : undefined),
    );
    await until(() => opened.length === limits.readsMax);
    const refused = await get(path);
    assert.equal(refused.status, 503);
    assert.match(((await refused.json()) as Problem).detail, /being read already/);
    leaving.abort();
    await assert.rejects(readers[0]!);
    // Its place is free once its connection is closed.
    const admitted = until(() => opened.length > limits.readsMax);
    while (opened.length === limits.readsMax) {
      readers[0] = get(path);
      await Promise.race([readers[0], admitted]);
    }
    letGo();
    await until(() => released.length === limits.readsMax + 1);
    for (const reader of readers) assert.equal((await reader).status, 200);
    assert.equal((await get(path)).status, 200);
  });
});
