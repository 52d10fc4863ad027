// PostgreSQL, or the synchronizer, is away for long: the ring fills, which is told at three quarters; when it is full
// writers wait; and it is emptied when what was away is back.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { connectNbd } from '@midmirror/nbd';
import pg from 'pg';
import { type ClusterUnderTest, eventually, withCluster } from './cluster-under-test.ts';

const SIZE_BYTES = 64 << 20;
const RING_BYTES = 144 << 20;
const WRITE_BYTES = 1 << 20;
const SETTINGS = { MIM_SEGMENT_BYTES: '36MiB', MIM_JOURNAL_BYTES: '144MiB' };
const RATIO = 'midmirror_journal_ring_used_ratio{volume="db"';
const WAIT_MS = 3000;

async function fill(
  cluster: ClusterUnderTest,
  away: () => Promise<void>,
  back: () => Promise<void>,
): Promise<void> {
  await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
  const client = await connectNbd(cluster.uri('db'));
  await client.write(0, Buffer.alloc(WRITE_BYTES, 1));
  await away();
  let written = 0;
  let failed: unknown = null;
  const writing = (async () => {
    for (; written < (2 * RING_BYTES) / WRITE_BYTES; written += 1)
      await client.write((written * WRITE_BYTES) % SIZE_BYTES, Buffer.alloc(WRITE_BYTES, written % 251));
  })().catch((error: unknown) => {
    failed = error;
  });
  // Until nothing moves any more.
  for (let before = -1; before !== written || written * WRITE_BYTES < RING_BYTES / 2; ) {
    before = written;
    await pause(WAIT_MS);
    assert.equal(failed, null);
  }
  assert.ok(
    written * WRITE_BYTES < RING_BYTES,
    `${written} MiB of the ring were taken, and then writers waited`,
  );
  assert.ok((await cluster.metric('ingest-1', RATIO))! >= 0.75, 'the metric tells of it');
  assert.ok(
    cluster.lines.some((line) => /journal is \d+ % full/.test(line)),
    'the log tells of it',
  );
  await back();
  await writing;
  assert.equal(failed, null, 'every write was answered well in the end');
  await client.flush();
  await eventually('the ring is emptied', 30_000, async () => {
    assert.ok((await cluster.metric('ingest-1', RATIO))! < 0.75);
  });
  for (let at = 0; at < SIZE_BYTES / WRITE_BYTES; at += 1) {
    const last = written - 1 - ((written - 1 - at) % (SIZE_BYTES / WRITE_BYTES));
    const bytes = await client.read(at * WRITE_BYTES, WRITE_BYTES);
    assert.ok(bytes.equals(Buffer.alloc(WRITE_BYTES, last % 251)), `MiB ${at} holds write ${last}`);
  }
  await client.close();
  await eventually('the timeline tells of it', 10_000, async () => {
    const subjects = await publishedBy(cluster.local.postgres.url);
    assert.ok(
      subjects.some((subject) => subject.endsWith('journal-filling')),
      subjects.join(),
    );
  });
  await cluster.verify('db');
}

/** The outbox keeps what it has published lately. */
async function publishedBy(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ subject: string }>('SELECT DISTINCT subject FROM message');
    return rows.map(({ subject }) => subject);
  } finally {
    await client.end();
  }
}

test('PostgreSQL is away for long', () =>
  withCluster(SETTINGS, {}, async (cluster) => {
    await fill(
      cluster,
      () => cluster.local.postgres.kill(),
      () => cluster.local.restartPostgres(),
    );
  }));

test('the synchronizer is away for long, and the timeline tells that the journal fills', () =>
  withCluster(SETTINGS, { restart: false }, async (cluster) => {
    const synchronizer = cluster.local.service('synchronizer');
    await fill(
      cluster,
      () => synchronizer.kill(),
      () => synchronizer.start(),
    );
  }));
