// What is told of checks, verdicts and jobs, from the catalogue of each database.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, type CheckJobRow, toNs, type VerdictRow } from '@midmirror/catalog';
import type { CheckSchedule } from '@midmirror/events';
import type { Report } from '@midmirror/telemetry';
import { catalogKinds, withCatalog } from '../../../libs/catalog/test/with-catalog.ts';
import { noProbes, reportChecks } from '../check-metrics.ts';
import { startSchedule } from '../core/due.ts';

const ms = (time: string): number => Date.parse(`2026-11-27T${time}Z`);
const column = (time: string): string => toNs(BigInt(ms(time)) * 1_000_000n);
const NOW = '10:00:00';
const NOTHING = {
  ...{ 'probes_total{good}': 0, 'probes_total{bad}': 0, 'probes_total{cannot-tell}': 0 },
  ...{ 'reused_total{}': 0, 'jobs{queued}': 0, 'jobs{running}': 0 },
};

async function addVolume(catalog: Catalog, id: string, name: string, state = 'active'): Promise<void> {
  const point = { mim_seq: 0, mim_ns: toNs(0n), created_ns: toNs(0n) };
  await catalog.db
    .insertInto('volume')
    .values({ id, name, size_bytes: 4096, state, policy: '{}', ...point })
    .execute();
}

/** `since`: from when its schedule holds. */
async function addCheck(
  catalog: Catalog,
  name: string,
  {
    schedule = null,
    since = NOW,
    seq = 0,
  }: { schedule?: CheckSchedule | null; since?: string; seq?: number } = {},
): Promise<void> {
  const due = schedule === null ? null : JSON.stringify(startSchedule(schedule, ms(since), seq));
  await catalog.db
    .insertInto('volume_check')
    .values({
      ...{ volume_id: 'v1', name, kind: 'fsck', settings: '{}', due, on_condemned: 'notify' },
      ...{ schedule: schedule === null ? null : JSON.stringify(schedule), created_ns: toNs(0n) },
    })
    .execute();
}

async function addVerdict(
  catalog: Catalog,
  seq: number,
  verdict: string,
  given: Partial<VerdictRow> = {},
): Promise<void> {
  await catalog.db
    .insertInto('verdict')
    .values({
      ...{ volume_id: 'v1', check_name: 'fsck', seq, time_ns: column(`09:00:0${seq}`), verdict },
      ...{ reason: '', output: '', check_key: '', read_ranges: null, reused_seq: null, duration_ms: 1 },
      ...{ at_ns: column('09:30:00'), ...given },
    })
    .execute();
}

let jobs = 0;

async function addJob(
  catalog: Catalog,
  status: string,
  created: string,
  given: Partial<CheckJobRow> = {},
): Promise<void> {
  jobs += 1;
  const ended = status === 'queued' || status === 'running' ? null : column(created);
  await catalog.db
    .insertInto('check_job')
    .values({
      ...{ id: `j${jobs}`, task: 'certify', volume_id: 'v1', volume_name: 'db', check_name: 'fsck' },
      ...{ probes_max: 1, state: '{}', cause: 'schedule', status, created_ns: column(created) },
      ...{ ended_ns: ended, result: null, error: null, ...given },
    })
    .execute();
}

/** `name{labels}` to value; each is told once. */
async function told(catalog: Catalog, counts = noProbes()): Promise<Record<string, number>> {
  const values: Record<string, number> = {};
  const report: Report = (name, labels, value) => {
    const series = `${name.replace(/midmirror_(check_)?/, '')}{${Object.values(labels).join()}}`;
    assert.ok(!(series in values), `${series} twice`);
    assert.ok(typeof value === 'number');
    values[series] = value;
  };
  await reportChecks(report, catalog.db, { nowNs: () => BigInt(ms(NOW)) * 1_000_000n }, counts);
  return values;
}

/** Of the check `fsck`. */
async function ofCheck(catalog: Catalog): Promise<Record<string, number | undefined>> {
  const all = await told(catalog);
  const of = (name: string): number | undefined => all[`${name}{db,fsck}`];
  return {
    good: of('last_good_timestamp_seconds'),
    condemned: of('condemned'),
    cannotTell: of('cannot_tell'),
    overdue: of('overdue_seconds'),
  };
}

for (const kind of catalogKinds) {
  test(`volumes with and without checks; those that are gone are not told of (${kind})`, () =>
    withCatalog(async (catalog) => {
      assert.deepEqual(await told(catalog), NOTHING);
      await addVolume(catalog, 'v1', 'db');
      await addVolume(catalog, 'v2', 'mail');
      await addVolume(catalog, 'v3', 'old', 'deleting');
      await addCheck(catalog, 'fsck');
      await addCheck(catalog, 'virus', { schedule: { kind: 'every', everyMs: 60_000 }, since: NOW });
      assert.deepEqual(await told(catalog), {
        ...NOTHING,
        ...{ 'checks{db}': 2, 'checks{mail}': 0 },
        ...{ 'last_good_timestamp_seconds{db,fsck}': 0, 'condemned{db,fsck}': 0, 'cannot_tell{db,fsck}': 0 },
        ...{ 'restore_waiting_seconds{db,fsck}': 0, 'restore_waiting_seconds{db,virus}': 0 },
        ...{ 'last_good_timestamp_seconds{db,virus}': 0, 'condemned{db,virus}': 0 },
        ...{ 'cannot_tell{db,virus}': 0, 'overdue_seconds{db,virus}': 0, 'interval_seconds{db,virus}': 60 },
      });
      const counts = { probes: { good: 3, bad: 2, 'cannot-tell': 1 }, reused: 5 };
      const { 'probes_total{bad}': bad, 'reused_total{}': reused } = await told(catalog, counts);
      assert.deepEqual([bad, reused], [2, 5]);
    }, kind));

  test(`the newest point decides, and one that can't be told takes nothing back (${kind})`, () =>
    withCatalog(async (catalog) => {
      await addVolume(catalog, 'v1', 'db');
      await addCheck(catalog, 'fsck');
      await addVerdict(catalog, 9, 'bad', { volume_id: 'v2' });
      await addVerdict(catalog, 9, 'bad', { check_name: 'virus' });
      const good = ms('09:00:02') / 1000;
      const none = { overdue: undefined };
      await addVerdict(catalog, 2, 'good');
      await addVerdict(catalog, 1, 'bad', { at_ns: column('09:59:00') });
      assert.deepEqual(await ofCheck(catalog), { good, condemned: 0, cannotTell: 0, ...none });
      await addVerdict(catalog, 3, 'bad');
      assert.deepEqual(await ofCheck(catalog), { good, condemned: 1, cannotTell: 0, ...none });
      await addVerdict(catalog, 4, 'cannot-tell');
      assert.deepEqual(await ofCheck(catalog), { good, condemned: 1, cannotTell: 1, ...none });
      await addVerdict(catalog, 5, 'good');
      const now = ms('09:00:05') / 1000;
      assert.deepEqual(await ofCheck(catalog), { good: now, condemned: 0, cannotTell: 0, ...none });
      await addJob(catalog, 'failed', '09:10:00', { cause: 'requested' });
      await addJob(catalog, 'cancelled', '09:20:00');
      assert.equal((await ofCheck(catalog))['cannotTell'], 1);
      await addJob(catalog, 'done', '09:15:00');
      assert.equal((await ofCheck(catalog))['cannotTell'], 0);
    }, kind));

  test(`a restore is told of while it says for what it waits (${kind})`, () =>
    withCatalog(async (catalog) => {
      await addVolume(catalog, 'v1', 'db');
      await addCheck(catalog, 'fsck');
      const waiting = async () => (await told(catalog))['restore_waiting_seconds{db,fsck}'];
      const restore = { task: 'restore', cause: 'requested' };
      await addJob(catalog, 'failed', '09:10:00', { ...restore, error: '{}' });
      await addJob(catalog, 'running', '09:20:00', { ...restore, check_name: 'virus', error: '{}' });
      await addJob(catalog, 'running', '09:50:00', restore);
      assert.equal(await waiting(), 0);
      await catalog.db
        .updateTable('check_job')
        .set({ error: '{}' })
        .where('created_ns', '=', column('09:50:00'))
        .execute();
      assert.equal(await waiting(), 600);
      assert.equal((await told(catalog))['jobs{running}'], 0);
    }, kind));

  test(`a check is overdue since its schedule wanted it, until its job has ended (${kind})`, () =>
    withCatalog(async (catalog) => {
      await addVolume(catalog, 'v1', 'db');
      // The first is due at once.
      await addCheck(catalog, 'fsck', { schedule: { kind: 'every', everyMs: 3_600_000 }, since: '09:58:00' });
      assert.equal((await ofCheck(catalog))['overdue'], 120);
      await addJob(catalog, 'queued', '09:55:00', { cause: 'requested' });
      assert.equal((await ofCheck(catalog))['overdue'], 120);
      await addJob(catalog, 'running', '09:50:00');
      await addJob(catalog, 'queued', '09:56:00');
      assert.equal((await ofCheck(catalog))['overdue'], 600);
      const { 'jobs{queued}': queued, 'jobs{running}': running } = await told(catalog);
      assert.deepEqual([queued, running], [2, 1]);

      const nth = { kind: 'nth-snapshot', nth: 2 } as const;
      await addCheck(catalog, 'second', { schedule: nth, seq: 4 });
      const overdue = async () => (await told(catalog))['overdue_seconds{db,second}'];
      const addSnapshot = async (seq: number, state: string, time: string): Promise<void> => {
        const row = { volume_id: 'v1', snapshot: seq, seq, time_ns: column(time), until_ns: null, state };
        await catalog.db
          .insertInto('snapshot')
          .values({ ...row, opened_ns: column(time), reason: '' })
          .execute();
      };
      await addSnapshot(3, 'closed', '09:01:00');
      await addSnapshot(5, 'closed', '09:02:00');
      assert.equal(await overdue(), 0);
      await addSnapshot(6, 'open', '09:03:00');
      assert.equal(await overdue(), 57 * 60);
    }, kind));
}
