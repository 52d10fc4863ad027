import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BUILDING, type Catalog, coveringRuns } from '@midmirror/catalog';
import fc from 'fast-check';
import { nextMerge, TIER_WIDTH, type TierRun } from '../tiers.ts';
import { catalogKinds, withCatalog } from '../../catalog/test/with-catalog.ts';

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

/** The naive twin of `coveringRuns`: the fewest runs for everything from unit `first` to unit `last`, in order. */
function cover<T extends TierRun>(runs: readonly T[], first: number, last: number): T[] {
  const wanted = runs.filter((run) => run.first >= first && run.last <= last);
  // Where a merged run begins, so does one of each lower level: of those that begin together the longest is taken.
  wanted.sort((a, b) => a.first - b.first || b.last - a.last || b.level - a.level);
  const chosen: T[] = [];
  let reached = Number.NEGATIVE_INFINITY;
  let mergedReached = Number.NEGATIVE_INFINITY;
  for (const run of wanted) {
    // Several runs of level 0 may share a unit; anything else that begins before `reached` is covered already.
    if (run.first <= reached && (run.level > 0 || run.last <= mergedReached)) continue;
    if (run.level > 0) mergedReached = run.last;
    reached = Math.max(reached, run.last);
    chosen.push(run);
  }
  return chosen;
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

function sideAfter(steps: readonly { kind: string; at: number }[], partsMax: number): Side {
  const side = new Side();
  for (const { kind, at } of steps) {
    if (kind === 'add') side.add(Math.min(at, partsMax));
    else if (kind === 'drop') side.drop(at);
    else if (kind === 'recycle') side.recycle(at);
    else side.merge();
  }
  return side;
}

test('any span is covered once, whatever was added, dropped, recycled and merged', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), fc.nat(), fc.nat(), (steps, from, length) => {
      const side = sideAfter(steps, 3);
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

for (const kind of catalogKinds)
  test(`${kind}: the catalogue finds the same cover as the walk over all runs, on both sides`, () =>
    withCatalog(async (catalog) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(step, { maxLength: 120 }),
          fc.nat(),
          fc.nat(),
          async (steps, from, length) => {
            for (const side of ['forward', 'backward'] as const) {
              const runs = sideAfter(steps, side === 'forward' ? 1 : 3);
              await store(catalog, side, runs);
              const first = from % (runs.next + 1);
              for (const last of [first + (length % (runs.next + 1)), Number.MAX_SAFE_INTEGER]) {
                const found = await coveringRuns(catalog.db, 'v1', side, first, last);
                const expected = cover(runs.runs, first, last);
                assert.deepEqual(
                  found.map((run) => [run.level, run.from_seq, run.to_seq]),
                  expected.map((run) => [run.level, run.first, run.last]),
                );
              }
            }
          },
        ),
        { numRuns: kind === 'embedded' ? 60 : 15 },
      );
    }, kind));

/** The runs in the catalogue, nothing else; units as sequence numbers too. */
async function store(catalog: Catalog, side: 'forward' | 'backward', { runs }: Side): Promise<void> {
  await catalog.transaction(async (tx) => {
    await tx.deleteFrom('run').execute();
    for (const { level, first, last, part } of runs) {
      // Of a snapshot the parts are objects of their own, numbered in their order.
      const [first_source, source] = side === 'forward' ? [first, last] : [first * 4 + part, last * 4 + part];
      const [snapshot, last_snapshot] = side === 'forward' ? [0, 0] : [first, last];
      const span = { first_source, source, snapshot, last_snapshot, from_seq: first, to_seq: last };
      const row = { volume_id: 'v1', side, level, ...span, extents: 0, data_bytes: 0, page_bytes: 0 };
      await tx.insertInto('run').values(row).execute();
    }
    // Half made: of no use yet.
    const building = { level: BUILDING, first_source: 0, source: 9999, snapshot: 0, last_snapshot: 9999 };
    const sizes = { from_seq: 0, to_seq: 9999, extents: 0, data_bytes: 0, page_bytes: 0 };
    await tx
      .insertInto('run')
      .values({ volume_id: 'v1', side, ...building, ...sizes })
      .execute();
  });
}
