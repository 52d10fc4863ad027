// What is told of tapes and jobs, from the catalogue of each database.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, type TapeArchiveRow, type TapeJobRow, toNs } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import type { Report } from '@midmirror/telemetry';
import { catalogKinds, withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { reportTapes, type TapeWatch } from '../tape-metrics.ts';

const ns = (time: string): bigint => BigInt(Date.parse(time)) * 1_000_000n;
const column = (time: string): string => toNs(ns(time));
const seconds = (time: string): number => Date.parse(time) / 1000;
const NOW = '2026-11-27T10:00:00Z';
const SINCE = '2026-11-01T00:00:00Z';

async function addVolume(catalog: Catalog, id: string, name: string, policy: object): Promise<void> {
  const point = { mim_seq: 0, mim_ns: column(SINCE), created_ns: column(SINCE) };
  await catalog.db
    .insertInto('volume')
    .values({ id, name, size_bytes: 4096, state: 'active', policy: JSON.stringify(policy), ...point })
    .execute();
}

async function addArchive(
  catalog: Catalog,
  id: string,
  created: string,
  given: Partial<TapeArchiveRow> = {},
): Promise<void> {
  await catalog.db
    .insertInto('tape_archive')
    .values({
      ...{ id, name: `db-${id}`, volume_id: 'v1', volume_name: 'db', volume_bytes: 4096, kind: 'image' },
      ...{ seq: 1, time_ns: column(created), until_ns: null, parent_id: null, chain: '[]' },
      ...{ created_ns: column(created), layers: '[]', library: 'file:///tapes', bytes: 1000, sha256: null },
      ...{ members: '[]', cause: 'schedule', verified_ns: null, compared: 0, lost_reason: null },
      ...given,
    })
    .execute();
}

let jobs = 0;

async function addJob(catalog: Catalog, created: string, given: Partial<TapeJobRow>): Promise<void> {
  jobs += 1;
  const ended = given.state === 'queued' || given.state === 'running' ? null : column(created);
  await catalog.db
    .insertInto('tape_job')
    .values({
      ...{ id: `j${jobs}`, task: 'write', volume_id: 'v1', volume_name: 'db', archive_id: `a${jobs}` },
      ...{ kind: 'image', seq: 1, time_ns: column(created), parent_id: null, library: 'file:///tapes' },
      ...{ options: '{}', cause: 'schedule', state: 'done', created_ns: column(created), error: null },
      ...{ ended_ns: ended, ...given },
    })
    .execute();
}

const watch: TapeWatch = {
  scheduledSinceNs: () => ns(SINCE),
  writtenBytes: (id) => (id === 'v1' ? 4321 : 0),
};

/** `name{labels}` to value; each is told once. */
async function told(catalog: Catalog, given: TapeWatch = watch): Promise<Record<string, number>> {
  const values: Record<string, number> = {};
  const report: Report = (name, labels, value) => {
    const series = `${name.replace('midmirror_tape_', '')}{${Object.values(labels).join()}}`;
    assert.ok(!(series in values), `${series} twice`);
    assert.ok(typeof value === 'number');
    values[series] = value;
  };
  await reportTapes(report, catalog.db, { nowNs: () => ns(NOW) }, given);
  return values;
}

for (const kind of catalogKinds) {
  test(`of a volume without tapes there are noughts (${kind})`, () =>
    withCatalog(async (catalog) => {
      assert.deepEqual(await told(catalog), { 'jobs{queued}': 0, 'jobs{running}': 0 });
      await addVolume(catalog, 'v2', 'mail', parsePolicy(null));
      assert.deepEqual(await told(catalog), {
        ...{ 'jobs{queued}': 0, 'jobs{running}': 0 },
        ...{ 'archives{mail,image}': 0, 'archives{mail,difference}': 0, 'bytes{mail}': 0 },
        ...{ 'lost_archives{mail}': 0, 'last_written_timestamp_seconds{mail}': 0 },
        ...{ 'job_failed{mail}': 0, 'written_bytes_total{mail}': 0 },
      });
    }, kind));

  test(`archives are counted by name, of volumes that are gone too, and lost ones apart (${kind})`, () =>
    withCatalog(async (catalog) => {
      await addVolume(catalog, 'v1', 'db', { syncEverySeconds: 60 });
      await addArchive(catalog, 'a1', '2026-11-20T03:00:00Z');
      await addArchive(catalog, 'a2', '2026-11-21T03:00:00Z', { kind: 'difference', bytes: 10 });
      await addArchive(catalog, 'a3', '2026-11-22T03:00:00Z', { kind: 'difference', bytes: 20 });
      await addArchive(catalog, 'a4', '2026-11-23T03:00:00Z', { bytes: 500, lost_reason: 'torn' });
      await addArchive(catalog, 'a5', '2026-10-23T03:00:00Z', { volume_id: 'v0', bytes: 7 });
      const gone = { volume_id: 'v9', volume_name: 'gone' };
      await addArchive(catalog, 'a6', '2026-11-02T03:00:00Z', { ...gone, lost_reason: 'torn' });
      const { 'jobs{queued}': _q, 'jobs{running}': _r, ...rest } = await told(catalog);
      assert.deepEqual(rest, {
        ...{ 'archives{db,image}': 2, 'archives{db,difference}': 2, 'bytes{db}': 1037 },
        'lost_archives{db}': 1,
        'last_written_timestamp_seconds{db}': seconds('2026-11-22T03:00:00Z'),
        ...{ 'archives{gone,image}': 0, 'archives{gone,difference}': 0, 'bytes{gone}': 0 },
        ...{ 'lost_archives{gone}': 1, 'last_written_timestamp_seconds{gone}': 0 },
        ...{ 'job_failed{db}': 0, 'written_bytes_total{db}': 4321 },
      });
    }, kind));

  test(`the last job that ended says whether it failed; those that wait are counted (${kind})`, () =>
    withCatalog(async (catalog) => {
      await addVolume(catalog, 'v1', 'db', {});
      await addVolume(catalog, 'v2', 'mail', {});
      const failed = async () => {
        const values = await told(catalog);
        return [values['job_failed{db}'], values['job_failed{mail}']];
      };
      await addJob(catalog, '2026-11-20T03:00:00Z', {});
      assert.deepEqual(await failed(), [0, 0]);
      await addJob(catalog, '2026-11-21T03:00:00Z', { state: 'failed' });
      await addJob(catalog, '2026-11-21T04:00:00Z', { volume_id: 'v2', volume_name: 'mail' });
      await addJob(catalog, '2026-11-22T03:00:00Z', { state: 'cancelled' });
      await addJob(catalog, '2026-11-23T03:00:00Z', { state: 'running' });
      for (const time of ['2026-11-23T04:00:00Z', '2026-11-23T05:00:00Z'])
        await addJob(catalog, time, { state: 'queued', volume_id: 'v2' });
      assert.deepEqual(await failed(), [1, 0]);
      const values = await told(catalog);
      assert.deepEqual([values['jobs{queued}'], values['jobs{running}']], [2, 1]);
      await addJob(catalog, '2026-11-24T03:00:00Z', { task: 'verify' });
      assert.deepEqual(await failed(), [0, 0]);
    }, kind));

  test(`overdue is what the schedule wants and nobody has written (${kind})`, () =>
    withCatalog(async (catalog) => {
      await addVolume(catalog, 'v1', 'db', { tapeAt: '0 3 * * *' });
      await addVolume(catalog, 'v2', 'never', { tapeAt: '0 0 30 2 *' });
      const overdue = async (given = watch) => (await told(catalog, given))['overdue_seconds{db}'];
      assert.equal((await told(catalog))['overdue_seconds{never}'], 0);
      assert.equal(await overdue(), seconds(NOW) - seconds('2026-11-01T03:00:00Z'));
      assert.equal(await overdue({ ...watch, scheduledSinceNs: () => null }), undefined);
      assert.equal(await overdue({ ...watch, scheduledSinceNs: () => ns('2026-11-27T04:00:00Z') }), 0);
      await addJob(catalog, '2026-11-26T03:00:01Z', {});
      assert.equal(await overdue(), 7 * 3600);
      // What was due is not there because a job of it is under way, has failed, or another was read.
      await addJob(catalog, '2026-11-27T03:00:01Z', { state: 'failed' });
      await addJob(catalog, '2026-11-27T04:00:01Z', { state: 'running' });
      await addJob(catalog, '2026-11-27T05:00:01Z', { task: 'verify' });
      assert.equal(await overdue(), 7 * 3600);
      await addJob(catalog, '2026-11-27T06:00:01Z', { cause: 'requested' });
      assert.equal(await overdue(), 0);
    }, kind));
}
