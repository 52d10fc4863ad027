import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { toNs } from '@midmirror/catalog';
import { limits } from '../config.ts';
import { byteOf, diskOf, pointOf, SIZE, TIME_NS, until, withConsole } from './console-under-test.ts';

interface Problem {
  code: string;
  detail: string;
}

/** Of the disk as of write `seq`. */
function digestsOf(seq: number, offset: number, length: number, blockBytes: number): string {
  let text = '';
  for (let at = offset; at < offset + length; at += blockBytes) {
    const count = Math.min(blockBytes, offset + length - at);
    const bytes = Uint8Array.from({ length: count }, (_, i) => byteOf(seq, at + i));
    text += createHash('sha256').update(bytes).digest('hex');
  }
  return text;
}

/** The volume itself is as of write 9, a clone as of 5. */
const seqOf = (name: string): number =>
  name === 'db' ? 9 : name === 'copy' ? 5 : Number(name.slice('db@seq:'.length));
const neighbours = {
  resolve: (at: string) => {
    if (at === 'seq:4')
      throw new MidmirrorError('point-unavailable', 'seq:4 lies in gap 1', { hint: 'seq:3' });
    return pointOf(Number(at.slice(4)));
  },
  disk: (name: string) => diskOf(seqOf(name)),
};

test('each block has its digest, in order, of the live disk, a point and a clone', async () => {
  await withConsole(neighbours, async ({ catalog, asked, opened, released, post }) => {
    const clone = {
      name: 'copy',
      id: 'c1',
      volume_id: 'v1',
      seq: 5,
      time_ns: toNs(TIME_NS),
      created_ns: toNs(TIME_NS),
    };
    await catalog.db.insertInto('clone').values(clone).execute();
    for (const { name, at, seq, offset, length, blockBytes } of [
      { name: 'db', at: 'latest', seq: 9, offset: 0, length: SIZE, blockBytes: 64 << 10 },
      { name: 'db', at: 'latest', seq: 9, offset: 512, length: 4097, blockBytes: 4096 },
      { name: 'db', at: 'seq:3', seq: 3, offset: 1024, length: (3 << 20) + 1, blockBytes: (1 << 20) + 512 },
      { name: 'db', at: 'seq:2', seq: 2, offset: SIZE - 512, length: 512, blockBytes: 4 << 20 },
      { name: 'copy', at: 'latest', seq: 5, offset: 0, length: 1, blockBytes: 4096 },
    ]) {
      const answer = await post(`/volumes/${name}/digests`, { at, offset, length, blockBytes });
      assert.equal(answer.status, 200);
      const bytes = Buffer.from(await answer.arrayBuffer());
      assert.equal(answer.headers.get('content-type'), 'application/octet-stream');
      assert.equal(answer.headers.get('content-length'), String(32 * Math.ceil(length / blockBytes)));
      assert.equal(answer.headers.get('midmirror-seq'), at === 'latest' ? null : String(seq));
      assert.equal(bytes.toString('hex'), digestsOf(seq, offset, length, blockBytes), `${name} ${at}`);
    }
    assert.deepEqual(asked, ['seq:3', 'seq:2'], 'the live disk is no point');
    assert.deepEqual(opened, ['db', 'db', 'db@seq:3', 'db@seq:2', 'copy']);
    await until(() => released.length === opened.length);
  });
});

test('what can not be is refused before anything is read; a fault in the first bytes is an error status', async () => {
  const failing = { ...neighbours, disk: () => diskOf(0, () => Promise.reject(new Error('a bad sector'))) };
  await withConsole(failing, async ({ opened, post }) => {
    const good = { at: 'latest', offset: 0, length: 4096, blockBytes: 4096 };
    for (const [wrong, status, words] of [
      [{ offset: 1 }, 400, /multiple of 512/],
      [{ offset: -512 }, 400, />= 0/],
      [{ length: 0 }, 400, />= 1/],
      [{ length: (1 << 30) + 1 }, 400, /<= 1073741824/],
      [{ blockBytes: 512 }, 400, />= 4096/],
      [{ blockBytes: 4097 }, 400, /multiple of 512/],
      [{ blockBytes: (4 << 20) + 512 }, 400, /<= 4194304/],
      [{ offset: SIZE }, 400, /ends after the disk's last byte/],
      [{ at: 'seq:4' }, 410, /lies in gap 1/],
      [{ more: 1 }, 400, /additional properties/],
    ] as const) {
      const answer = await post('/volumes/db/digests', { ...good, ...wrong });
      assert.equal(answer.status, status, JSON.stringify(wrong));
      assert.match(((await answer.json()) as Problem).detail, words);
    }
    assert.deepEqual(opened, []);
    const fault = await post('/volumes/db/digests', good);
    assert.equal(fault.status, 500);
    assert.equal(((await fault.json()) as Problem).code, 'io');
  });
});

test('no more are read at once than allowed, and who leaves gives the place back', async () => {
  const { promise: held, resolve: letGo } = Promise.withResolvers<void>();
  await withConsole(
    { ...neighbours, disk: () => diskOf(9, () => held) },
    async ({ opened, released, post }) => {
      const leaving = new AbortController();
      const body = { at: 'latest', offset: 0, length: 512, blockBytes: 4096 };
      const path = '/volumes/db/digests';
      const readers = Array.from({ length: limits.digestsMax }, (_, i) =>
        post(path, body, i === 0 ? leaving.signal : undefined),
      );
      await until(() => opened.length === limits.digestsMax);
      const refused = await post(path, body);
      assert.equal(refused.status, 503);
      assert.match(((await refused.json()) as Problem).detail, /being read for digests already/);
      leaving.abort();
      await assert.rejects(readers[0]!);
      // Its place is free once its connection is closed.
      const admitted = until(() => opened.length > limits.digestsMax);
      while (opened.length === limits.digestsMax) {
        readers[0] = post(path, body);
        await Promise.race([readers[0], admitted]);
      }
      letGo();
      for (const reader of readers) assert.equal((await reader).status, 200);
      await until(() => released.length === opened.length);
    },
  );
});

test('no server of live disks is an error of its own, points are read all the same', async () => {
  const context = {
    readLiveFrom: () => {
      throw new MidmirrorError('unavailable', 'no ingest is there');
    },
  };
  await withConsole({ ...neighbours, context }, async ({ post }) => {
    const body = { at: 'latest', offset: 0, length: 512, blockBytes: 4096 };
    const answer = await post('/volumes/db/digests', body);
    assert.equal(answer.status, 503);
    assert.match(((await answer.json()) as Problem).detail, /no ingest/);
    assert.equal((await post('/volumes/db/digests', { ...body, at: 'seq:3' })).status, 200);
  });
});
