// The loops against fake ports: bounded, stopped at any time, gone on from what was kept; and the slots, fair to volumes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { type BisectState, startBisect } from '../core/bisect.ts';
import type { Verdict } from '../core/verdict.ts';
import { startWalk, type WalkState } from '../core/walk.ts';
import { runSearch } from '../loops/search-loop.ts';
import { Slots } from '../loops/slots.ts';
import { runWalk } from '../loops/walk-loop.ts';

const never = new AbortController().signal;

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await turn();
}

test('a search that is stopped again and again, with probes that take their time, finds the write', async () => {
  const random = new SeededRandom(1);
  for (let round = 0; round < 100; round += 1) {
    const firstBad = 1 + random.below(100_000);
    let kept = startBisect({ good: 0, bad: 100_000, goodKnown: true, badKnown: true });
    let running = 0;
    const jobs = 1 + random.below(4);
    for (let end = null; end === null; ) {
      const stop = new AbortController();
      let left = 1 + random.below(12);
      ({ end } = await runSearch(kept, {
        jobs,
        signal: stop.signal,
        async probe(seq, signal): Promise<Verdict> {
          running += 1;
          assert.ok(running <= jobs, 'also with those that are ending');
          await turns(random.below(5));
          running -= 1;
          return signal.aborted ? 'cannot-tell' : seq >= firstBad ? 'bad' : 'good';
        },
        async keep(state) {
          kept = JSON.parse(JSON.stringify(state)) as BisectState;
          left -= 1;
          if (left === 0) stop.abort();
        },
      }));
      assert.equal(running, 0, 'nothing goes on after it has ended');
      if (end !== null) assert.deepEqual(end, { kind: 'found', lastGood: firstBad - 1, firstBad });
    }
  }
});

test('a search ends with the error of a probe, after the others, and keeps what it knew', async () => {
  let kept: BisectState | undefined;
  let ended = 0;
  const probe = async (seq: number): Promise<Verdict> => {
    await turns(seq % 7);
    ended += 1;
    if (ended >= 3) throw new Error('the catalogue is away');
    return seq > 700 ? 'bad' : 'good';
  };
  const state = startBisect({ good: 0, bad: 1000, goodKnown: true, badKnown: true });
  const keep = async (now: BisectState): Promise<void> => {
    kept = now;
  };
  await assert.rejects(runSearch(state, { jobs: 2, signal: never, probe, keep }), /the catalogue is away/);
  assert.equal(kept!.answers.filter(({ probed }) => probed).length, 2);
});

test('a walk that is stopped goes on from the state that was kept', async () => {
  let kept: WalkState = startWalk({ from: 0, every: 2 });
  const probed: number[] = [];
  for (let end = null; end === null; ) {
    const stop = new AbortController();
    ({ end } = await runWalk(kept, {
      signal: stop.signal,
      mirrors: async () => [1, 2, 3, 4, 5, 6, 7],
      async probe(seq): Promise<Verdict> {
        probed.push(seq);
        return seq >= 6 ? 'bad' : 'good';
      },
      async keep(state) {
        kept = JSON.parse(JSON.stringify(state)) as WalkState;
        stop.abort();
      },
    }));
    if (end !== null) assert.deepEqual(end, { kind: 'condemned', condemned: 7, firstBad: 6, restoreTo: 5 });
  }
  assert.deepEqual(probed, [1, 3, 5, 7, 6]);
});

test('slots are never more than there are; volumes take turns; who stops waiting leaves', async () => {
  const slots = new Slots(2);
  const order: string[] = [];
  let running = 0;
  const act = (name: string) => async (): Promise<void> => {
    running += 1;
    assert.ok(running <= 2);
    order.push(name);
    await turns(3);
    running -= 1;
  };
  const stop = new AbortController();
  const all = ['a1', 'a2', 'a3', 'a4', 'a5', 'b1', 'b2', 'c1'].map((name) =>
    slots.within(name[0]!, name === 'a4' ? stop.signal : never, act(name)),
  );
  assert.deepEqual([slots.taken, slots.waitingCount], [2, 6]);
  stop.abort();
  await assert.rejects(all[3]!, /the monitor is stopping/);
  await Promise.all(all.filter((_, i) => i !== 3));
  assert.deepEqual(order, ['a1', 'a2', 'a3', 'b1', 'c1', 'a5', 'b2']);
  assert.deepEqual([slots.taken, slots.waitingCount], [0, 0]);
  await assert.rejects(
    slots.within('a', never, () => Promise.reject(new Error('failed'))),
    /failed/,
  );
  assert.equal(slots.taken, 0, 'a check that fails gives its slot back');
});
