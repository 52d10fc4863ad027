// Copies on several NATS servers: of the buckets, and of the streams beside them. The servers are real ones.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import { freePort, type NatsServer, startNats } from '@midmirror/local-servers';
import { openEmbeddedCatalog } from '@midmirror/catalog';
import { openNatsBus, openNatsLink } from '@midmirror/bus';
import { Member } from './cluster-under-test.ts';

const AGREE_MS_MAX = 40_000;
const BUCKETS = ['KV_mim_nodes', 'KV_mim_owners'];
const STREAMS = ['MIM_JOURNAL', 'MIM_TIMELINE', 'MIM_DEAD'];

async function withServers(
  count: number,
  act: (folder: string, urls: string[]) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-replicas-`);
  const routes: string[] = [];
  for (let i = 0; i < count; i += 1) routes.push(`nats://127.0.0.1:${await freePort()}`);
  const servers: NatsServer[] = [];
  try {
    for (const [i, route] of routes.entries()) {
      const args = ['--server_name', `s${i}`, '--cluster_name', 'test', '--cluster', route];
      servers.push(
        await startNats({
          directory: `${folder}/${i}`,
          log: () => {},
          args: count === 1 ? [] : [...args, '--routes', routes.join(',')],
        }),
      );
    }
    await act(
      folder,
      servers.map(({ url }) => url),
    );
  } finally {
    for (const server of servers) await server.kill();
    rmSync(folder, { recursive: true });
  }
}

async function replicasOf(url: string, names: readonly string[]): Promise<number[]> {
  const link = openNatsLink({ url, name: 'looks', log: () => {} });
  try {
    const { jsm } = await link.ready();
    return await Promise.all(names.map(async (name) => (await jsm.streams.info(name)).config.num_replicas));
  } finally {
    await link.close();
  }
}

/** Servers that have just started may take longer to agree on leaders than one `create` waits. */
async function createdOnce({ cluster }: Member, volumeId: string): Promise<void> {
  const deadline = performance.now() + AGREE_MS_MAX;
  for (;;) {
    try {
      return await cluster.create(volumeId);
    } catch (error) {
      const mayPass = error instanceof MidmirrorError && error.code === 'unavailable';
      if (!mayPass || performance.now() > deadline) throw error;
    }
  }
}

test('three servers hold three copies of buckets and streams', async () => {
  await withServers(3, async (folder, urls) => {
    const url = urls.join(',');
    const member = new Member(url, 'n1', 'ingest', 3);
    const catalog = await openEmbeddedCatalog(`${folder}/catalog.db`);
    const bus = openNatsBus({ url, name: 'test', catalog, log: () => {}, replicas: 3 });
    try {
      await bus.ready();
      await createdOnce(member, 'v');
      assert.deepEqual(await replicasOf(url, [...BUCKETS, ...STREAMS]), [3, 3, 3, 3, 3]);
    } finally {
      await bus.close();
      await catalog.close();
      await member.cluster.stop();
    }
  });
});

test('a single server makes no bucket of three copies: said once with what to change, and tried again', async () => {
  await withServers(1, async (_folder, [url]) => {
    const three = new Member(url!, 'n1', 'ingest', 3);
    try {
      const refused =
        /^said .*makes no mim_nodes of 3 replicas .*replicas > 1 not supported.*MIM_NATS_REPLICAS/;
      await three.until(refused);
      assert.deepEqual(three.cluster.nodes(), []);
      // Somebody makes them as the server can.
      const one = new Member(url!, 'n2');
      try {
        await three.seesNodes('n1', 'n2');
        assert.equal(three.count(refused), 1);
        assert.deepEqual(await replicasOf(url!, BUCKETS), [1, 1]);
      } finally {
        await one.cluster.stop();
      }
    } finally {
      await three.cluster.stop();
    }
  });
});
