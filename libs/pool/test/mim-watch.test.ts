// A reader that is stopped at any place, a sync at any place, clocks that jump: no byte is counted that is newer than
// the reader's point. The sync never hears from the reader.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MimState } from '@midmirror/journal';
import fc from 'fast-check';
import {
  createMim,
  ForgetfulFiles,
  MimStateFile,
  MimWatch,
  poolLimits,
  readMimState,
  volumePaths,
  writeMimState,
} from '../index.ts';

const SECTORS = 4;
const SETTLE_MS = poolLimits.readerSettleMs;

/** Of the MIM: which write made each sector. A sync moves it from its point to its target, sector by sector. */
class World {
  nowMs = 0;
  readonly sectors: number[] = new Array<number>(SECTORS).fill(0);
  state: MimState = { generation: 1, epoch: 1, mimSeq: 0, mimNs: 0n, syncId: 0, targetSeq: 0 };
  #torn: MimState | null = null;
  /** What the catalogue says is saved, so that a map made now does not lean on the MIM for it. */
  preparedTo = 0;

  /** Both slots are written in turn; while one is, the other counts. */
  look(): MimState {
    return this.#torn ?? this.state;
  }

  *write(change: Partial<MimState>): Generator<void> {
    this.#torn = this.state;
    this.state = { ...this.state, ...change, generation: this.state.generation + 1 };
    yield;
    this.#torn = null;
    yield;
  }
}

function* syncs(world: World): Generator<void> {
  for (let syncId = 1; ; syncId += 1) {
    const targetSeq = syncId * 10;
    world.preparedTo = targetSeq;
    yield;
    yield* world.write({ syncId, targetSeq });
    const writtenMs = world.nowMs;
    while (world.nowMs - writtenMs < SETTLE_MS) yield;
    for (let sector = 0; sector < SECTORS; sector += 1) {
      world.sectors[sector] = targetSeq;
      yield;
    }
    yield* world.write({ mimSeq: targetSeq, syncId: 0, targetSeq: 0 });
  }
}

interface Tally {
  counted: number;
  refused: number;
}

/** Reads the MIM by a map made at some time, and makes it anew when it must, as mirrors do. */
function* reads(world: World, watch: MimWatch, tally: Tally): Generator<void> {
  let preparedTo = world.preparedTo;
  yield;
  for (let sector = 0; ; sector = (sector + 1) % SECTORS) {
    yield;
    const bytes = world.sectors[sector]!;
    yield;
    if (watch.holdsTo(preparedTo)) {
      assert.ok(bytes <= preparedTo, `write ${bytes} was read by a map that knows of ${preparedTo}`);
      tally.counted += 1;
    } else {
      tally.refused += 1;
      yield;
      preparedTo = world.preparedTo;
    }
  }
}

const steps = fc.array(
  fc.record({
    who: fc.constantFrom('sync', 'read'),
    times: fc.integer({ min: 1, max: 12 }),
    passesMs: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 400 }), fc.constant(10_000)),
  }),
  { minLength: 1, maxLength: 80 },
);

function run(schedule: readonly { who: string; times: number; passesMs: number }[], validMs: number): Tally {
  const world = new World();
  const tally = { counted: 0, refused: 0 };
  const watch = new MimWatch(
    () => world.look(),
    () => world.nowMs,
    validMs,
  );
  const reading = reads(world, watch, tally);
  const syncing = syncs(world);
  for (const { who, times, passesMs } of schedule) {
    for (let i = 0; i < times; i += 1) (who === 'sync' ? syncing : reading).next();
    world.nowMs += passesMs;
  }
  return tally;
}

test('no byte newer than its map is counted, wherever reader and sync stand still', () => {
  const all = { counted: 0, refused: 0 };
  fc.assert(
    fc.property(steps, (schedule) => {
      const { counted, refused } = run(schedule, poolLimits.readerValidMs);
      all.counted += counted;
      all.refused += refused;
    }),
    { numRuns: 3000 },
  );
  assert.ok(all.counted > 1000 && all.refused > 1000, JSON.stringify(all));
});

test('a reader that went by its look for longer than a sync waits would read what is newer', () => {
  assert.throws(() =>
    fc.assert(
      fc.property(steps, (schedule) => void run(schedule, 2 * SETTLE_MS)),
      { numRuns: 3000 },
    ),
  );
});

test('a look sees a sync before its first byte, in either slot, and finds none when both are damaged', async () => {
  const files = new ForgetfulFiles();
  const paths = volumePaths('volume');
  await createMim(files, paths, 1 << 20, 0n);
  const file = await MimStateFile.open(files, paths);
  let nowMs = 0;
  const watch = new MimWatch(
    () => file.readNow(),
    () => nowMs,
  );
  assert.equal(watch.holdsTo(0), true);
  const before = (await readMimState(files, paths))!;
  const during = await writeMimState(files, paths, before, { syncId: 1, targetSeq: 7 });
  nowMs += poolLimits.readerValidMs - 1;
  assert.equal(watch.holdsTo(0), true, 'it goes by its look');
  nowMs += 1;
  assert.equal(watch.holdsTo(0), false);
  assert.equal(watch.holdsTo(7), true);
  const damaged = await files.open(paths.mimState, 'write');
  await damaged.writev([new Uint8Array(64)], (during.generation % 2) * 4096);
  nowMs += 10_000;
  assert.equal(watch.holdsTo(6), false);
  assert.equal(watch.holdsTo(7), true, 'the other slot says the same');
  await damaged.writev([new Uint8Array(64)], ((during.generation + 1) % 2) * 4096);
  nowMs += 10_000;
  assert.throws(() => watch.holdsTo(7), { code: 'corrupt' });
  await damaged.close();
  await file.close();
});
