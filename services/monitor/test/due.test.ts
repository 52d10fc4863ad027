// Schedules against looking at each tick: whatever the pauses, nothing is due twice, and what was missed is made up once.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type MadeSnapshot, type DueState, dueNow, nextDueMs, startSchedule } from '../core/due.ts';

test('by time: due at once, then each interval; a pause of many intervals is made up once', () => {
  const schedule = { kind: 'every', everyMs: 60_000 } as const;
  let state = startSchedule(schedule, 1_000_000, 0);
  const look = (nowMs: number): number[] => {
    const said = dueNow(schedule, state, { nowMs, lookingSinceMs: 0, snapshots: [] });
    state = JSON.parse(JSON.stringify(said.state)) as DueState;
    return said.due.map(({ missed }) => missed);
  };
  assert.deepEqual(look(1_000_000), [0]);
  assert.deepEqual(look(1_000_001), []);
  assert.equal(nextDueMs(schedule, state), 1_060_000);
  assert.deepEqual(look(1_060_000), [0]);
  assert.deepEqual(look(1_060_000 + 10 * 60_000 + 5), [9]);
  assert.deepEqual(look(1_060_000 + 10 * 60_000 + 6), []);
  assert.equal(nextDueMs(schedule, state), 1_060_000 + 11 * 60_000, 'the times stay where they were');
  // The clock is set back by a year.
  assert.deepEqual(look(1000), []);
  assert.deepEqual(look(61_000), [0]);
});

test('by time: however often one looks, each interval is due once, looked for or made up', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 60 }), (pauses) => {
      const schedule = { kind: 'every', everyMs: 100 } as const;
      let state = startSchedule(schedule, 0, 0);
      let nowMs = 0;
      let counted = 0;
      for (const pause of [0, ...pauses]) {
        nowMs += pause;
        const said = dueNow(schedule, state, { nowMs, lookingSinceMs: 0, snapshots: [] });
        state = said.state;
        assert.ok(said.due.length <= 1);
        for (const { missed } of said.due) counted += 1 + missed;
        assert.equal(counted, Math.floor(nowMs / 100) + 1);
      }
    }),
  );
});

test('by snapshots: each nth once, in order; those closed while nobody looked once, by the newest', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.constantFrom('snapshot', 'look', 'away', 'back'), { maxLength: 80 }),
      (nth, acts) => {
        const schedule =
          nth === 1 ? ({ kind: 'every-snapshot' } as const) : { kind: 'nth-snapshot' as const, nth };
        const snapshots: MadeSnapshot[] = [{ seq: 5, madeAtMs: 0 }];
        let state = startSchedule(schedule, 1, 5);
        let lookingSinceMs: number | null = 1;
        let count = 0;
        const expected: number[] = [];
        const missing: number[] = [];
        const due: number[] = [];
        const look = (nowMs: number): void => {
          const said = dueNow(schedule, state, { nowMs, lookingSinceMs: lookingSinceMs!, snapshots });
          state = JSON.parse(JSON.stringify(said.state)) as DueState;
          for (const { at, missed } of said.due) {
            assert.ok(at !== 'latest');
            if (missing.length > 0 && at.seq === missing.at(-1)) assert.equal(missed, missing.length - 1);
            due.push(at.seq);
          }
          if (missing.length > 0) expected.unshift(missing.at(-1)!);
          assert.deepEqual(due, expected);
          due.length = expected.length = missing.length = 0;
        };
        acts.forEach((act, i) => {
          const nowMs = 10 + i;
          if (act === 'snapshot') {
            snapshots.push({ seq: 6 + i, madeAtMs: nowMs });
            count += 1;
            if (count % nth === 0) (lookingSinceMs === null ? missing : expected).push(6 + i);
          } else if (act === 'away') {
            if (lookingSinceMs !== null) look(nowMs);
            lookingSinceMs = null;
          } else if (act === 'back') lookingSinceMs ??= nowMs;
          else if (lookingSinceMs !== null) look(nowMs);
        });
      },
    ),
    { numRuns: 2000 },
  );
});
