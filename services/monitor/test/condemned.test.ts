// What is done when a check condemns a volume: once for each last good point, whoever finds it and however often.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wallClock } from '@midmirror/basis';
import { openEmbeddedBus } from '@midmirror/bus';
import { type Catalog, toNs } from '@midmirror/catalog';
import { silent } from '@midmirror/telemetry';
import { catalogKinds, withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { CheckJobs, type Task } from '../check-jobs.ts';
import { Condemned, type Condemnation } from '../condemned.ts';
import type { MonitorContext } from '../context.ts';
import { Prober } from '../prober.ts';

const VOLUME = { size_bytes: 4096, state: 'active', policy: '{}', created_ns: toNs(0n), mim_ns: toNs(0n) };

interface World {
  catalog: Catalog;
  said: string[];
  act(more?: Partial<Condemnation>): Promise<void>;
  verdict(seq: number, verdict: 'good' | 'bad'): Promise<void>;
  /** Status and where it goes back to, oldest first. */
  restores(): Promise<[string, number][]>;
  pins(): Promise<number[]>;
  /** Ends the restore that is under way. */
  end(): Promise<void>;
}

/** A volume `db` with its window from write 5 on, and a check that wants it put back. */
async function withCondemned(kind: (typeof catalogKinds)[number], act: (world: World) => Promise<void>) {
  await withCatalog(async (catalog) => {
    const bus = openEmbeddedBus(catalog);
    const said: string[] = [];
    const context: MonitorContext = {
      ...{ catalog, bus, clock: wallClock(), telemetry: silent, log: (line) => void said.push(line) },
      ...{ stateDirectory: '/nowhere', webhook: null, exportUri: (name) => name, liveUri: (name) => name },
    };
    let end = Promise.withResolvers<void>();
    const restore: Task<unknown> = {
      probes: () => ({ made: 0, reused: 0, max: null }),
      async run() {
        await end.promise;
        const nothing = { firstBad: null, cannotTell: 0, unsteady: [], writes: [] };
        return { kind: 'restored', lastGood: null, ...nothing };
      },
    };
    const jobs = new CheckJobs(
      ...([context, new Prober(context)] as const),
      ...([{ restore, certify: restore, bisect: restore }, async () => {}] as const),
    );
    const condemned = new Condemned(context, jobs);
    const { db } = catalog;
    await db
      .insertInto('volume')
      .values({ id: 'a1', name: 'db', mim_seq: 5, ...VOLUME })
      .execute();
    const check = { volume_id: 'a1', name: 'fsck', kind: 'fsck', settings: '{}', created_ns: toNs(1n) };
    await db
      .insertInto('volume_check')
      .values({ ...check, on_condemned: 'restore' })
      .execute();
    const restores = async (): Promise<[string, number][]> => {
      const rows = await db.selectFrom('check_job').selectAll().orderBy('created_ns').execute();
      return rows.map(({ status, state }) => [
        status === 'queued' || status === 'running' ? 'unended' : status,
        (JSON.parse(state) as { good: { seq: number } }).good.seq,
      ]);
    };
    try {
      await act({
        ...{ catalog, said, restores },
        act: (more = {}) =>
          condemned.act({
            ...{ volumeId: 'a1', check: 'fsck', lastGood: null, bad: 20, cause: 'schedule', ...more },
          }),
        async verdict(seq, verdict) {
          const row = { volume_id: 'a1', check_name: 'fsck', seq, time_ns: toNs(BigInt(seq)), verdict };
          const said = { reason: '', output: '', check_key: '', duration_ms: 0, at_ns: toNs(0n) };
          await db
            .insertInto('verdict')
            .values({ ...row, ...said })
            .execute();
        },
        pins: async () =>
          (await db.selectFrom('pin').selectAll().orderBy('seq').execute()).map(({ seq }) => seq),
        async end() {
          end.resolve();
          while ((await restores()).some(([status]) => status === 'unended')) await new Promise(setImmediate);
          end = Promise.withResolvers();
        },
      });
    } finally {
      end.resolve();
      await jobs.stop();
      await bus.close();
    }
  }, kind);
}

for (const kind of catalogKinds) {
  test(`once for each last good point, and one at a time (${kind})`, () =>
    withCondemned(kind, async ({ act, verdict, restores, pins, end, said, catalog }) => {
      await act();
      assert.deepEqual(await restores(), []);
      assert.match(said.join(), /db is not put back: no good point of it is known/);

      await verdict(10, 'good');
      await act({ bad: 10 });
      await act({ bad: null });
      assert.deepEqual(await restores(), [], 'the past alone is bad, or nobody knows what');

      await Promise.all([act(), act({ bad: 15 }), act({ lastGood: { seq: 7, timeNs: '7' } })]);
      assert.deepEqual(await restores(), [['unended', 10]]);
      assert.deepEqual(await pins(), [10]);
      await verdict(22, 'good');
      await act({ bad: 23 });
      assert.deepEqual(await restores(), [['unended', 10]], 'while one is under way there is no other');
      await end();
      assert.deepEqual(await pins(), []);

      // By what the watch of a live volume knows, too.
      await act({ bad: 30, lastGood: { seq: 25, timeNs: '25' } });
      await end();
      await act({ bad: 23 });
      await act({ bad: 30 });
      assert.deepEqual(await restores(), [
        ['done', 10],
        ['done', 25],
      ]);

      // A point that is let go already: the job tells it.
      await catalog.db.updateTable('volume').set({ mim_seq: 40 }).where('id', '=', 'a1').execute();
      await act({ bad: 50, lastGood: { seq: 35, timeNs: '35' } });
      assert.deepEqual((await restores()).at(-1), ['unended', 35]);
      assert.deepEqual(await pins(), []);
      await end();
    }));
}

test('nothing more is done for `notify`, or for a check that is gone', () =>
  withCondemned('embedded', async ({ act, verdict, restores, catalog }) => {
    await verdict(10, 'good');
    await catalog.db.updateTable('volume_check').set({ on_condemned: 'notify' }).execute();
    await act();
    await act({ check: 'another' });
    assert.deepEqual(await restores(), []);
  }));
