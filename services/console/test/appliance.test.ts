import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { answer, openNatsBus } from '@midmirror/bus';
import { startNats } from '@midmirror/local-servers';
import { whyNotReady } from '../readiness.ts';
import { diskOf, pointOf, TIME_NS, withConsole } from './console-under-test.ts';

const neighbours = { resolve: () => pointOf(1), disk: () => diskOf(1) };

interface ApplianceView {
  version: string;
  nbd: string | null;
  deadLetters: number | null;
}

test('the appliance is described while NATS is away, and without a server for guests', async () => {
  const directory = mkdtempSync(`${tmpdir()}/mim-console-nats-`);
  const nats = await startNats({ directory, log: () => {} });
  let nbdUri: string | null = 'nbd://ingest-1:10809';
  try {
    await withConsole(
      {
        ...neighbours,
        context: { nbdUri: () => nbdUri },
        openBus: (catalog) => openNatsBus({ url: nats.url, name: 'test', catalog, log: () => {} }),
      },
      async ({ bus, catalog, get }) => {
        const look = async (): Promise<ApplianceView> => {
          const shown = await get('/appliance');
          assert.equal(shown.status, 200);
          return (await shown.json()) as ApplianceView;
        };
        await bus.ready();
        const before = await look();
        assert.deepEqual([before.nbd, before.deadLetters], ['nbd://ingest-1:10809', 0]);
        assert.deepEqual(await whyNotReady({ catalog, bus }), []);
        await nats.kill();
        nbdUri = null;
        const { version, nbd, deadLetters } = await look();
        assert.deepEqual({ version, nbd, deadLetters }, { version: '0.0.0', nbd: null, deadLetters: null });
        const [reason, ...more] = await whyNotReady({ catalog, bus });
        assert.match(reason!, /^the other services can't be reached: .*NATS/);
        assert.deepEqual(more, []);
        await nats.restart();
        await bus.ready();
        assert.equal((await look()).deadLetters, 0);
      },
    );
  } finally {
    await nats.kill();
    rmSync(directory, { recursive: true });
  }
});

test('a volume without an address for guests is shown, one that nobody serves hides no other', async () => {
  const openVolumes = 40;
  await withConsole({ ...neighbours, context: { nbdUri: () => null } }, async ({ catalog, bus, get }) => {
    const row = await catalog.db.selectFrom('volume').selectAll().executeTakeFirstOrThrow();
    for (let i = 2; i <= openVolumes; i += 1) {
      const name = `db${String(i).padStart(3, '0')}`;
      await catalog.db
        .insertInto('volume')
        .values({ ...row, id: `v${i}`, name })
        .execute();
    }
    answer(bus, 'ingest.status', async ({ volumeId }) => {
      if (volumeId === 'v3') throw new Error('nobody serves it');
      return {
        ...{ seq: 4, timeNs: TIME_NS.toString(), durableSeq: 4, journalBytesUsed: 0, journalBytesMax: 1 },
        ...{
          segments: 1,
          headExtents: 0,
          headBytes: 0,
          segmentsEvicted: 0,
          state: 'open',
          connections: 0,
          peers: [],
        },
      };
    });
    const { volumes } = (await (await get('/volumes')).json()) as {
      volumes: { name: string; state: string; uri?: string | null }[];
    };
    assert.equal(volumes.length, openVolumes);
    assert.deepEqual(
      volumes.map(({ name }) => name).toSorted(),
      volumes.map(({ name }) => name),
    );
    for (const { name, state, uri } of volumes)
      assert.deepEqual([state, uri], name === 'db003' ? ['broken', undefined] : ['open', null]);
  });
});
