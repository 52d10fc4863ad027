// A real Prometheus looks at all processes of a cluster under load: what the dashboard and the alerts ask is answered by
// them together, also when a volume has changed its owner; and who has none is seen though nobody tells of it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { PrometheusProcess } from '../watch/prometheus-process.ts';
import { everyQueryAnswers } from '../watch/queries.ts';
import { type ClusterUnderTest, eventually, FailoverGuest, withCluster } from './cluster-under-test.ts';

const SIZE_BYTES = 4 << 20;
const SETTINGS = { MIM_SEGMENT_BYTES: '36MiB', MIM_LEASE_MS: '3000' };
const ANSWER_MS_MAX = 30_000;
const INGESTS = ['ingest-1', 'ingest-2'];
const VOLUMES = ['one', 'two'];
const TRIES_MAX = 30;

/** A volume at each of the ingests: who makes one is not ours to say. Gives who has each. */
async function volumesAtBoth(cluster: ClusterUnderTest): Promise<string[]> {
  const [first, second] = VOLUMES as [string, string];
  await cluster.post('/volumes', { name: first, sizeBytes: SIZE_BYTES });
  const owner = await cluster.ownerOf(first);
  for (let i = 0; i < TRIES_MAX; i += 1) {
    await cluster.post('/volumes', { name: second, sizeBytes: SIZE_BYTES });
    const other = await cluster.ownerOf(second);
    if (other !== owner) return [owner, other];
    await cluster.delete(`/volumes/${second}`);
  }
  throw new Error(`all of ${TRIES_MAX} volumes were made by ${owner}`);
}

/** Guests that write until the function that it gives is called. */
function load(guests: readonly FailoverGuest[]): () => Promise<void> {
  let stopping = false;
  const running = guests.map(async (guest) => {
    while (!stopping) {
      await guest.write(16, ANSWER_MS_MAX);
      await pause(20); // a rate, and not all that the machine can do
    }
    await guest.close();
  });
  for (const each of running) each.catch(() => {}); // told of at the end
  return async () => {
    stopping = true;
    await Promise.all(running);
  };
}

/**
 * The rules that hold now, or would if it stayed so. A sync was asked for, so that these young volumes hold less of their
 * past than they might: that is true, and passes.
 */
async function alertsOf(prometheus: PrometheusProcess): Promise<string[]> {
  const rules = await prometheus.rules();
  const held = rules.filter(({ state }) => state !== 'inactive').map(({ name }) => name);
  return held.filter((name) => name !== 'MidmirrorWindowShort');
}

test('each query is answered by the processes together, before and after a takeover; a lost owner is seen', () =>
  withCluster(SETTINGS, { ingests: 2, restart: false }, async (cluster) => {
    const owners = await volumesAtBoth(cluster);
    const targets = [...cluster.local.services.values()].map(({ name, says }) => {
      return { metrics: says.get('metrics (HTTP)')!, service: name.replace(/-\d+$/, '') };
    });
    const prometheus = await PrometheusProcess.start(cluster.folder, targets);
    // Each at the ingest that lives on.
    const guests = VOLUMES.map(
      (name, i) => new FailoverGuest(cluster.at(owners[0]!, name), SIZE_BYTES, new SeededRandom(i)),
    );
    const endLoad = load(guests);
    try {
      for (const volume of VOLUMES) {
        await eventually('it is written to', ANSWER_MS_MAX, async () => {
          assert.ok((await cluster.get<{ latest: { seq: number } }>(`/volumes/${volume}`)).latest.seq > 100);
        });
        await cluster.post(`/volumes/${volume}/syncs`, { closeSnapshot: true });
        await cluster.verify(volume);
      }
      const past = await connectNbd(cluster.uri('one@snap:1'));
      await past.read(0, 4096);
      await everyQueryAnswers(prometheus, VOLUMES, { replicators: false, tapes: false, checks: false });
      const answering = await prometheus.query('sum(up{job="midmirror"})');
      assert.equal(Number(answering[0]!.value[1]), targets.length);

      const displaced = cluster.local.service(owners[1]!);
      // It wakes with the volume in its hands, and must tell of it no more.
      displaced.signal('SIGSTOP');
      await eventually('both are at one', ANSWER_MS_MAX, async () => {
        const found = await prometheus.query(`midmirror_volume_owner{node="${owners[0]}"} == 1`);
        assert.deepEqual(found.map(({ metric }) => metric['volume']).sort(), VOLUMES);
      });
      displaced.signal('SIGCONT');
      await eventually('nothing is wrong', ANSWER_MS_MAX, async () => {
        for (const metric of ['owner', 'state']) {
          const told = await prometheus.query(`midmirror_volume_${metric}{volume="${VOLUMES[1]}"}`);
          assert.equal(new Set(told.map(({ metric: { instance } }) => instance)).size, 1);
        }
        assert.deepEqual(await prometheus.query('up{job="midmirror"} < 1'), []);
        assert.deepEqual(await alertsOf(prometheus), []);
      });
      await everyQueryAnswers(prometheus, VOLUMES, { replicators: false, tapes: false, checks: false });
      await past.close();
      await endLoad();

      for (const name of INGESTS) await cluster.local.service(name).kill();
      await eventually('both have lost their owner', ANSWER_MS_MAX, async () => {
        assert.deepEqual(await alertsOf(prometheus), ['MidmirrorDown', 'MidmirrorOwnerLost']);
        const rule = (await prometheus.rules()).find(({ name }) => name === 'MidmirrorOwnerLost')!;
        const lost = await prometheus.query(rule.query);
        assert.deepEqual(lost.map(({ metric }) => metric['volume']).sort(), VOLUMES);
      });
    } finally {
      await endLoad().catch(() => {}); // the first error counts
      await prometheus.stop();
    }
  }));
