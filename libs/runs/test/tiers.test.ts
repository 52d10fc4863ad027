import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cover, nextMerge, TIER_WIDTH, type TierRun } from '../tiers.ts';

interface Run extends TierRun {
  /** Number of the run of level 0 within its unit. */
  part: number;
}

/** A side's runs as the index keeps them: what a change of a unit touches, the merged runs lose. */
class Side {
  runs: Run[] = [];
  next = 0;

  add(parts: number): void {
    for (let part = 0; part < parts; part += 1)
      this.runs.push({ level: 0, first: this.next, last: this.next, part });
    this.next += 1;
  }

  drop(unit: number): void {
    this.runs = this.runs.filter((run) => !(run.first <= unit && run.last >= unit));
  }

  recycle(last: number): void {
    this.runs = this.runs.filter((run) => run.last > last);
  }

  merge(): boolean {
    const merge = nextMerge(this.runs);
    if (merge === null) return false;
    const { level, inputs } = merge;
    assert.ok(
      inputs.every((run) => run.level === level - 1),
      'only neighbours of one level are merged',
    );
    this.runs.push({ level, first: inputs[0]!.first, last: inputs.at(-1)!.last, part: 0 });
    return true;
  }

  plain(first: number, last: number): Run[] {
    return this.runs.filter((run) => run.level === 0 && run.first >= first && run.last <= last);
  }
}

/** Each run of level 0 in the span is covered exactly once, in order. */
function checkCover(side: Side, first: number, last: number): Run[] {
  const chosen = cover(side.runs, first, last);
  const covered: Run[] = [];
  for (const run of chosen) covered.push(...(run.level === 0 ? [run] : side.plain(run.first, run.last)));
  const key = (run: Run): string => `${run.first}.${run.part}`;
  assert.deepEqual(covered.map(key), side.plain(first, last).map(key));
  return chosen;
}

const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('add'), at: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('drop'), at: fc.nat(200) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('recycle'), at: fc.nat(40) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('merge'), at: fc.nat() }) },
);

test('any span is covered once, whatever was added, dropped, recycled and merged', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), fc.nat(), fc.nat(), (steps, from, length) => {
      const side = new Side();
      for (const { kind, at } of steps) {
        if (kind === 'add') side.add(at);
        else if (kind === 'drop') side.drop(at);
        else if (kind === 'recycle') side.recycle(at);
        else side.merge();
      }
      const first = from % (side.next + 1);
      checkCover(side, first, first + (length % (side.next + 1)));
      checkCover(side, 0, side.next);
    }),
    { numRuns: 2000 },
  );
});

test('with all merging done, ten thousand runs are covered by a few of each level, from any to any', () => {
  const side = new Side();
  for (let i = 0; i < 10_000; i += 1) side.add(1);
  while (side.merge());
  const levels = Math.ceil(Math.log(10_000) / Math.log(TIER_WIDTH));
  for (let first = 0; first < 10_000; first += 371) {
    for (let last = first; last < 10_000; last += 997) {
      const chosen = checkCover(side, first, last);
      const most = 2 * levels * (TIER_WIDTH - 1);
      assert.ok(chosen.length <= most, `${first} to ${last}: ${chosen.length} runs, at most ${most}`);
    }
  }
});

test('what drops leave in the middle of history is merged again', () => {
  const side = new Side();
  for (let i = 0; i < 4096; i += 1) side.add(1);
  while (side.merge());
  for (let i = 0; i < 4096; i += 1) if (i % 5 !== 0) side.drop(i);
  while (side.merge());
  assert.ok(checkCover(side, 0, 4095).length <= 4 * TIER_WIDTH);
});
