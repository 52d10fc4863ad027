// How jobs end: each once, and none leaves its pins or its row behind.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MidmirrorError } from '@midmirror/basis';
import type { CatalogReader } from '@midmirror/catalog';
import { Jobs, type NewJob } from '../jobs.ts';
import { rowOf, withArchiver, writtenAs } from './archiver-under-test.ts';

const wish = {
  ...{ volumeId: 'v1', kind: 'image' as const, at: 'latest', from: null, library: null, zstdLevel: null },
  ...{ recipients: [], barcodes: null },
};

const newJob: NewJob = {
  ...{ id: 'j1', task: 'write', volume_id: 'v1', volume_name: 'db', archive_id: 'j1', kind: 'image' },
  ...{ seq: 7, time_ns: '07', parent_id: null, library: 'file:///tapes', cause: 'schedule', options: {} },
  pinned: { point: 7, parent: null },
};

async function stateOf(db: CatalogReader): Promise<string[]> {
  const rows = await db.selectFrom('tape_job').select(['id', 'state']).orderBy('id').execute();
  return rows.map(({ id, state }) => `${id} ${state}`);
}

for (const code of ['locked', 'io'] as const)
  test(`what goes wrong after a job (${code}) neither does it again nor makes it a failed one`, () =>
    withArchiver(async (under) => {
      await under.addVolume('v1', 'db');
      let performed = 0;
      const jobs = new Jobs(under.context, {
        perform: async () => {
          performed += 1;
          return async () => {};
        },
        ended: async () => {
          throw new MidmirrorError(code, 'the retention did not come to its end');
        },
      });
      await jobs.add(newJob);
      assert.equal((await under.ended('j1')).state, 'done');
      await jobs.stop();
      assert.equal(performed, 1);
      assert.deepEqual(await stateOf(under.catalog.db), ['j1 done']);
      assert.deepEqual(await under.pins(), []);
      assert.match(under.said.join('\n'), /did not come to its end/);
    }));

test('a catalogue that is away when a job ends, or when its turn comes, leaves no job and no pin behind', async () => {
  let failures = 0;
  await withArchiver(
    async (under) => {
      await under.addVolume('v1', 'db');
      under.calls.write = async (order) => {
        if (under.called.filter((name) => name === 'write').length === 1) failures = 3;
        return writtenAs(order);
      };
      const { job } = await under.ask('tape-archiver.write', wish);
      assert.equal((await under.ended(job.job)).state, 'done');
      assert.deepEqual(await under.pins(), [`tape-base-requested-v1 100`]);
      assert.equal(failures, 0);
    },
    (catalog) => ({
      ...catalog,
      db: catalog.db,
      async transaction(act) {
        if (failures > 0) {
          failures -= 1;
          throw new MidmirrorError('unavailable', 'the database is away');
        }
        return await catalog.transaction(act);
      },
    }),
  );
});

test('a job that is cancelled as its turn comes is not done', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    let performed = 0;
    const jobs = new Jobs(under.context, {
      perform: async (_job, { signal }) => {
        signal.throwIfAborted();
        performed += 1;
        return async () => {};
      },
      ended: async () => {},
    });
    await jobs.add(newJob);
    // Its row has been asked for by now, and not come.
    const { state } = await jobs.cancel('j1');
    await jobs.stop();
    assert.equal(state, 'cancelled');
    assert.equal(performed, 0);
    assert.deepEqual(await stateOf(under.catalog.db), ['j1 cancelled']);
    assert.deepEqual(await under.pins(), []);
    await assert.rejects(jobs.cancel('j1'), /has ended already: it is cancelled/);
  }));

test('a difference holds the point of its parent too, however many tapes are written meanwhile', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 20)]);
    const [begun, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    under.calls.write = async (order) => {
      begun.resolve();
      await goOn.promise;
      return writtenAs(order);
    };
    const difference = { ...wish, kind: 'difference' as const };
    const first = await under.ask('tape-archiver.write', difference);
    under.latest = 110;
    const second = await under.ask('tape-archiver.write', { ...difference, from: 'a1' });
    await begun.promise;
    assert.deepEqual(
      (await under.pins()).map((pin) => pin.replace(first.job.job, '1').replace(second.job.job, '2')).sort(),
      ['tape-job-1 100', 'tape-job-1-parent 20', 'tape-job-2 110', 'tape-job-2-parent 20'],
    );
    goOn.resolve();
    for (const { job } of [first, second]) assert.equal((await under.ended(job.job)).state, 'done');
    assert.deepEqual(await under.pins(), ['tape-base-requested-v1 110']);
  }));

test('no pin is left of a job whose parent has gone before it could be held', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    await under.addArchives([rowOf('a1', 20)]);
    await under.catalog.db.updateTable('volume').set({ mim_seq: 50 }).execute();
    const difference = { ...wish, kind: 'difference' as const, from: 'a1' };
    await assert.rejects(under.ask('tape-archiver.write', difference), /write 20 .* no longer a point/);
    assert.deepEqual(await under.pins(), []);
    assert.deepEqual(await stateOf(under.catalog.db), []);
  }));

test('a job whose volume is deleted while it waits fails with words for it, and leaves no pin', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db');
    const [begun, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    under.calls.write = async () => {
      begun.resolve();
      await goOn.promise;
      throw new MidmirrorError('unavailable', 'the point is away');
    };
    const { job } = await under.ask('tape-archiver.write', wish);
    await begun.promise;
    // As deleting does.
    for (const table of ['pin', 'volume'] as const) await under.catalog.db.deleteFrom(table).execute();
    goOn.resolve();
    const { state, error } = await under.ended(job.job);
    assert.equal(state, 'failed');
    assert.match(error ?? '', /volume db has been deleted meanwhile/);
    assert.deepEqual(await under.pins(), []);
  }));
