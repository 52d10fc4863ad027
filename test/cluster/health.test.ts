// Whether each process of a cluster can do its job, as orchestrators and people ask: without NATS or PostgreSQL an
// ingest serves its guests, so it stays ready and warns; who can do nothing then is not ready and says why.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { SeededRandom } from '@midmirror/basis';
import { readyz, WELL } from '../watch/readyz.ts';
import { type ClusterUnderTest, eventually, FailoverGuest, withCluster } from './cluster-under-test.ts';

const SIZE_BYTES = 4 << 20;
const SETTINGS = { MIM_SEGMENT_BYTES: '36MiB', MIM_LEASE_MS: '3000' };
const ANSWER_MS_MAX = 30_000;
const ALL = ['ingest-1', 'ingest-2', 'mapping-index', 'synchronizer', 'tape-archiver', 'monitor', 'console'];

function metricsOf(cluster: ClusterUnderTest, service: string): string {
  return cluster.local.service(service).says.get('metrics (HTTP)')!;
}

async function allWell(cluster: ClusterUnderTest): Promise<void> {
  await Promise.all(
    ALL.map((name) =>
      eventually(`${name} is ready`, ANSWER_MS_MAX, async () =>
        assert.deepEqual(await readyz(metricsOf(cluster, name)), WELL),
      ),
    ),
  );
}

/** What a server's absence does to each: those named are not ready, the others warn; all of them live. */
async function allSay(
  cluster: ClusterUnderTest,
  server: 'bus' | 'catalogue',
  said: RegExp,
  notReady: readonly string[],
): Promise<void> {
  const says = async (name: string): Promise<void> => {
    const isReady = !notReady.includes(name);
    await eventually(`${name} says ${said}`, ANSWER_MS_MAX, async () => {
      const answer = await readyz(metricsOf(cluster, name));
      assert.equal(answer.status, isReady ? 200 : 503, JSON.stringify(answer));
      const told = isReady ? answer.warnings : answer.reasons;
      assert.ok(
        told.some((each) => said.test(each)),
        JSON.stringify(answer),
      );
    });
    assert.equal((await fetch(`${metricsOf(cluster, name)}/healthz`)).status, 200);
    assert.equal(await cluster.metric(name, `midmirror_server_away{server="${server}"}`), 1);
  };
  await Promise.all(ALL.map(says));
}

test('NATS and PostgreSQL go away and come back: each process says so, and guests keep their ingest', () =>
  withCluster(SETTINGS, { ingests: 2, restart: false, cable: true }, async (cluster) => {
    await cluster.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    const guest = new FailoverGuest(cluster.uri('db'), SIZE_BYTES, new SeededRandom(5));
    await guest.write(16, ANSWER_MS_MAX);
    await allWell(cluster);

    await cluster.local.nats.kill();
    await allSay(cluster, 'bus', /^NATS is away: /, ['synchronizer', 'tape-archiver', 'monitor', 'console']);
    await guest.write(16, ANSWER_MS_MAX);
    await cluster.local.nats.restart();
    await allWell(cluster);

    await cluster.local.postgres.kill();
    await allSay(cluster, 'catalogue', /^the catalogue can't be read: /, [
      'mapping-index',
      'synchronizer',
      'tape-archiver',
      'monitor',
      'console',
    ]);
    await guest.write(16, ANSWER_MS_MAX);
    await cluster.local.restartPostgres();
    await allWell(cluster);

    assert.equal(guest.reconnects, 0);
    await guest.check(cluster.uri('db'), guest.model, 'the live disk');
    await guest.close();

    // One ingest alone is cut off from NATS, and loses its volume: guests had better be sent to the other one.
    const owns = await cluster.metric('ingest-1', 'midmirror_volume_owner{volume="db"');
    const [owner, other] = owns === 1 ? ['ingest-1', 'ingest-2'] : ['ingest-2', 'ingest-1'];
    cluster.cables.get(owner)!.cut();
    await eventually('it is not ready', ANSWER_MS_MAX, async () => {
      const { status, reasons, warnings } = await readyz(metricsOf(cluster, owner));
      assert.equal(status, 503);
      assert.deepEqual(reasons, ['volume db has been taken over, and it is not heard by whom']);
      assert.match(warnings[0]!, /^NATS is away: /);
    });
    assert.deepEqual(await readyz(metricsOf(cluster, other)), WELL);
    cluster.cables.get(owner)!.mend();
    await allWell(cluster);
  }));

test('an ingest that starts without NATS is not ready until NATS has been there; a damaged volume is a warning', () =>
  withCluster(SETTINGS, { restart: false }, async (cluster) => {
    const { id } = await cluster.post<{ id: string }>('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    await cluster.post('/volumes', { name: 'other', sizeBytes: SIZE_BYTES });
    const ingest = cluster.local.service('ingest-1');
    await ingest.stop();
    writeFileSync(`${cluster.folder}/data/pool/volumes/${id}/mim.state`, Buffer.alloc(8192));
    await cluster.local.nats.kill();
    await ingest.start();
    const { status, reasons } = await readyz(metricsOf(cluster, 'ingest-1'));
    assert.deepEqual(
      { status, reasons },
      { status: 503, reasons: ['NATS has not been there since the start'] },
    );
    assert.equal((await fetch(`${metricsOf(cluster, 'ingest-1')}/healthz`)).status, 200);
    await cluster.local.nats.restart();
    await eventually('it says what is damaged', ANSWER_MS_MAX, async () => {
      const answer = await readyz(metricsOf(cluster, 'ingest-1'));
      assert.deepEqual({ ...answer, warnings: answer.warnings.length }, { ...WELL, warnings: 1 });
      assert.match(answer.warnings[0]!, /^volume db can't be opened: .*mim\.state: both slots are damaged/);
    });
    await eventually('the other is served', ANSWER_MS_MAX, async () => {
      assert.equal(await cluster.metric('ingest-1', 'midmirror_volume_owner{volume="other"'), 1);
    });
    assert.equal(await cluster.metric('ingest-1', 'midmirror_volume_owner{volume="db"'), 0);
    assert.equal(await cluster.metric('ingest-1', 'midmirror_volume_state{volume="db",state="broken"}'), 1);
  }));
