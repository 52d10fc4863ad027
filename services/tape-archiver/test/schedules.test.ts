// Schedules against the catalogue: clocks that are set back, tapes that can't be restored, policies that are none.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type ArchiverUnderTest,
  rowOf,
  schedulesOver,
  withArchiver,
  writtenAs,
} from './archiver-under-test.ts';

const MINUTE = 60_000_000_000n;
const YEAR = 365n * 24n * 60n * MINUTE;
const policy = { tapeAt: '* * * * *', tapeDifferencesPerImage: 0 };

const jobsOf = async ({ catalog }: ArchiverUnderTest): Promise<string[]> =>
  (await catalog.db.selectFrom('tape_job').select('id').execute()).map(({ id }) => id);

test('a clock that was a year ahead for a while keeps no tape from being written, nor writes one at each look', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db', policy);
    under.calls.write = async (order) => writtenAs(order);
    const schedules = schedulesOver(under, true);
    const after = async (ns: bigint): Promise<number> => {
      under.time.nowNs += ns;
      under.latest += 1;
      await schedules.look();
      const jobs = await jobsOf(under);
      for (const job of jobs) await under.ended(job);
      return jobs.length;
    };
    assert.equal(await after(YEAR), 0);
    assert.equal(await after(MINUTE), 1);
    // The clock is right again.
    assert.equal(await after(-YEAR), 1);
    assert.equal(await after(MINUTE), 2);
    assert.equal(await after(1_000_000_000n), 2);
    assert.equal(await after(MINUTE), 3);
  }));

test('a volume that has not changed gets another tape when its newest one can not be restored', () =>
  withArchiver(async (under) => {
    await under.addVolume('v1', 'db', policy);
    const cause = 'schedule';
    const image = rowOf('a1', 50, { cause, lost_reason: 'water' });
    await under.addArchives([image]);
    const more = { cause, kind: 'difference', parent_id: 'a1', chain: '["a1"]' };
    await under.addArchives([rowOf('a2', under.latest, more)]);
    const schedules = schedulesOver(under, false);
    await schedules.look();
    under.time.nowNs += 2n * MINUTE;
    await schedules.look();
    assert.equal((await jobsOf(under)).length, 1);
  }));

test('a volume with a policy that is none keeps no other from its tapes', () =>
  withArchiver(async (under) => {
    await under.addVolume('v0', 'older', { tapeAt: 'never', fromTheFuture: 1 });
    await under.addVolume('v1', 'db', policy);
    const schedules = schedulesOver(under, false);
    await schedules.look();
    under.time.nowNs += 2n * MINUTE;
    await schedules.look();
    assert.equal((await jobsOf(under)).length, 1);
    assert.match(under.said.join('\n'), /volume older: no tape by its schedule: .*tapeAt/);
  }));
