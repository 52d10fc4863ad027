// The console of a cluster while its neighbours come and go: past points are read through it, and what can't be told
// is said to be so.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { connectNbd } from '@midmirror/nbd';
import { type ClusterUnderTest, eventually, withCluster } from './cluster-under-test.ts';

const SIZE_BYTES = 1 << 20;
const SETTINGS = { MIM_SEGMENT_BYTES: '36MiB', MIM_LEASE_MS: '3000' };
const ANSWER_MS_MAX = 30_000;

interface ApplianceView {
  nbd: string | null;
  deadLetters: number | null;
}

async function bytesOf(cluster: ClusterUnderTest, at: string): Promise<Buffer> {
  const answer = await fetch(`${cluster.api}/v1/volumes/db/bytes?at=${at}&offset=4000&length=200`);
  const body = Buffer.from(await answer.arrayBuffer());
  if (answer.status === 200) return body;
  throw Object.assign(new Error(body.toString()), { status: answer.status });
}

async function reasons(cluster: ClusterUnderTest): Promise<string[]> {
  const address = cluster.local.service('console').says.get('metrics (HTTP)')!;
  const answer = await fetch(`${address}/readyz`);
  return ((await answer.json()) as { reasons: string[] }).reasons;
}

/** While a gap is open no past point is the latest, and the live disk has digests all the same. */
async function withinGap(cluster: ClusterUnderTest): Promise<void> {
  await cluster.post('/volumes/db/gaps', { reason: 'a test' });
  await assert.rejects(bytesOf(cluster, 'latest'), { status: 410 });
  const body = { at: 'latest', offset: 4096, length: 4096, blockBytes: 4096 };
  const answer = await fetch(`${cluster.api}/v1/volumes/db/digests`, {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
  });
  assert.equal(answer.status, 200);
  const expected = createHash('sha256').update(Buffer.alloc(4096, 2)).digest();
  assert.deepEqual(Buffer.from(await answer.arrayBuffer()), expected);
  const { gap } = await cluster.post<{ gap: { toSeq: number } }>('/volumes/db/gaps/close', {});
  assert.equal(gap.toSeq, 2);
}

test('the console reads past points of a cluster, and outlives each of its neighbours', () =>
  withCluster(SETTINGS, { restart: false }, async (cluster) => {
    const { local } = cluster;
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    const guest = await connectNbd(cluster.uri('db'));
    await guest.write(0, Buffer.alloc(8192, 1), true);
    await cluster.post('/volumes/db/marks', { name: 'first' });
    await guest.write(4096, Buffer.alloc(4096, 2), true);
    await guest.close();
    const check = async (): Promise<void> => {
      assert.deepEqual(await bytesOf(cluster, 'seq:0'), Buffer.alloc(200));
      assert.deepEqual(await bytesOf(cluster, 'mark:first'), Buffer.alloc(200, 1));
      const newest = Buffer.concat([Buffer.alloc(96, 1), Buffer.alloc(104, 2)]);
      assert.deepEqual(await bytesOf(cluster, 'latest'), newest);
    };
    await eventually('a first reading', ANSWER_MS_MAX, check);
    await assert.rejects(bytesOf(cluster, 'seq:99'), { status: 410 });
    await assert.rejects(bytesOf(cluster, 'mark:none'), { status: 404 });
    assert.deepEqual(await reasons(cluster), []);
    await withinGap(cluster);

    await local.service('mapping-index').kill();
    await assert.rejects(bytesOf(cluster, 'mark:first'), { status: 503 });
    const { volumes } = await cluster.get<{ volumes: { state: string }[] }>('/volumes');
    assert.deepEqual(
      volumes.map(({ state }) => state),
      ['open'],
    );
    await local.service('mapping-index').start();
    await eventually('reading with a new mapping index', ANSWER_MS_MAX, check);

    await local.nats.kill();
    const alone = await cluster.get<ApplianceView>('/appliance');
    assert.deepEqual([alone.nbd, alone.deadLetters], [cluster.nbd, null]);
    assert.match((await reasons(cluster)).join(), /the other services can't be reached/);
    await local.nats.restart();
    await eventually('reading with NATS', ANSWER_MS_MAX, check);
    await eventually('ready', ANSWER_MS_MAX, async () => assert.deepEqual(await reasons(cluster), []));

    await local.service('ingest-1').kill();
    await eventually('no ingest is known', ANSWER_MS_MAX, async () =>
      assert.equal((await cluster.get<ApplianceView>('/appliance')).nbd, null),
    );
    const listed = await cluster.get<{ volumes: { name: string; state: string }[] }>('/volumes');
    assert.deepEqual(
      listed.volumes.map(({ name, state }) => [name, state]),
      [['db', 'broken']],
    );
    const printed = await cluster.mim('mirror', 'db', '--at', 'mark:first');
    assert.equal(printed.status, 1);
    await local.service('ingest-1').start();
    await eventually('reading with a new ingest', ANSWER_MS_MAX, check);
    const uri = await eventually('a URI', ANSWER_MS_MAX, async () => {
      const { status, stdout, stderr } = await cluster.mim('mirror', 'db', '--at', 'mark:first');
      assert.equal(status, 0, stderr);
      return stdout.trim();
    });
    assert.equal(uri, cluster.uri('db@seq:1'));
    const verified = await cluster.mim('verify', 'db');
    assert.equal(verified.status, 0, verified.stdout + verified.stderr);
  }));
