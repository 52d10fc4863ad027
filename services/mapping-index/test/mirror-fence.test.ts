// A mirror that stands still at any place of a read, beside syncs that it never hears of and that stand still at any of
// theirs, while time passes for both: each read gives the bytes of its point.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { messageOf } from '@midmirror/basis';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import {
  createMim,
  ForgetfulFiles,
  MimImage,
  MimStateFile,
  MimWatch,
  MimWriter,
  PieceReader,
  type PoolFile,
  type PoolFiles,
  poolLimits,
  readMimState,
  volumePaths,
  writeMimState,
} from '@midmirror/pool';
import { TreeVrmo } from '@midmirror/vrmo';
import fc from 'fast-check';
import { Mirror, type Prepared } from '../mirror.ts';
import { TreePlaces } from '../places.ts';

const SECTOR = 512;
/** Which sector each sync writes: what is left on the MIM lies in several parts. */
const ORDER = [1, 3, 0, 4, 2];
const SIZE = ORDER.length * SECTOR;

/** Whoever passes waits until it is let on. */
class Gate {
  readonly #waiting: (() => void)[] = [];
  open = false;

  async pass(): Promise<void> {
    if (!this.open) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  letOne(): void {
    this.#waiting.shift()?.();
  }

  letAll(): void {
    this.open = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

class World {
  nowMs = 0;
  /** Syncs that the catalogue has as prepared. */
  prepared = 0;
  readonly reading = new Gate();
  readonly syncing = new Gate();
  readonly #files = new ForgetfulFiles();
  readonly #paths = volumePaths('volume');
  mirror!: Mirror;
  tally = { reads: 0, renewed: 0 };

  async start(validMs?: number): Promise<void> {
    await createMim(this.#files, this.#paths, SIZE, 0n);
    // The point is all zeroes, read from the file and not told by the marks.
    const mim = await MimWriter.open(this.#files, this.#paths);
    await mim.mark([0, SIZE]);
    await mim.close();
    const state = await MimStateFile.open(this.#files, this.#paths);
    this.mirror = new Mirror(0, SIZE, this.#placesNow(), {
      mim: await MimImage.open(this.#gated(), this.#paths),
      watch: new MimWatch(
        () => state.readNow(),
        () => this.nowMs,
        validMs,
      ),
      pieces: new PieceReader(this.#files, this.#paths),
      renew: async (generation) => {
        await this.reading.pass();
        this.tally.renewed += 1;
        if (this.mirror.generation === generation) await this.mirror.switchTo(this.#placesNow());
        return true;
      },
    });
  }

  /** What the syncs that are prepared have saved, they found to be zeroes. */
  #placesNow(): Prepared {
    const saved = new ExtentMap();
    for (const sector of ORDER.slice(0, this.prepared))
      saved.put(sector * SECTOR, SECTOR, ExtentFlag.zero | ExtentFlag.backward, 1, 0, 0);
    return { places: new TreePlaces(new TreeVrmo(saved, { sizeBytes: SIZE })), safeToSeq: this.prepared };
  }

  #gated(): PoolFiles {
    const gated = (file: PoolFile): PoolFile => ({
      ...file,
      read: async (...where) => {
        await this.reading.pass();
        const count = await file.read(...where);
        await this.reading.pass();
        return count;
      },
    });
    return {
      ...this.#files.forProcess(),
      open: async (path, mode) => {
        const file = await this.#files.open(path, mode);
        return path === this.#paths.mimImage ? gated(file) : file;
      },
    };
  }

  async syncAll(): Promise<void> {
    const mim = await MimWriter.open(this.#files, this.#paths);
    for (const sector of ORDER) {
      await this.syncing.pass();
      this.prepared += 1;
      await this.syncing.pass();
      const before = (await readMimState(this.#files, this.#paths))!;
      const writing = { syncId: this.prepared, targetSeq: this.prepared };
      const during = await writeMimState(this.#files, this.#paths, before, writing);
      const toldMs = this.nowMs;
      while (this.nowMs - toldMs < poolLimits.readerSettleMs && !this.syncing.open) await this.syncing.pass();
      if (this.syncing.open) return;
      await mim.write([new Uint8Array(SECTOR).fill(9)], sector * SECTOR);
      await this.syncing.pass();
      const done = { mimSeq: this.prepared, syncId: 0, targetSeq: 0 };
      await writeMimState(this.#files, this.#paths, during, done);
    }
  }

  async read(): Promise<void> {
    const bytes = Buffer.alloc(SIZE, 7);
    await this.mirror.read(0, SIZE, bytes, 0);
    this.#check(bytes);
  }

  tryRead(): void {
    const bytes = Buffer.alloc(SIZE, 7);
    if (this.mirror.tryRead(0, SIZE, bytes, 0)) this.#check(bytes);
  }

  #check(bytes: Buffer): void {
    this.tally.reads += 1;
    assert.ok(
      bytes.every((byte) => byte === 0),
      'bytes that are newer than the point',
    );
  }
}

const actions = fc.array(
  fc.record({
    what: fc.constantFrom('sync', 'sync', 'read', 'read', 'try'),
    times: fc.integer({ min: 1, max: 4 }),
    passesMs: fc.constantFrom(0, 0, 100, 300, 800),
  }),
  { minLength: 10, maxLength: 60 },
);
type Action = typeof actions extends fc.Arbitrary<(infer A)[]> ? A : never;

async function run(schedule: readonly Action[], validMs?: number): Promise<World['tally']> {
  const world = new World();
  await world.start(validMs);
  const syncing = world.syncAll();
  let reading: Promise<void> | null = null;
  let failure: unknown = null;
  const readOn = (): void => {
    reading ??= world
      .read()
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => {
        reading = null;
      });
  };
  for (const { what, times, passesMs } of schedule) {
    for (let i = 0; i < times; i += 1) {
      readOn();
      if (what === 'sync') world.syncing.letOne();
      else if (what === 'read') world.reading.letOne();
      else world.tryRead();
      await turn();
    }
    world.nowMs += passesMs;
    if (failure !== null) break;
  }
  world.syncing.letAll();
  world.reading.letAll();
  await syncing;
  await reading;
  if (failure !== null) throw failure;
  return world.tally;
}

test('every read gives the bytes of its point, wherever the mirror and the syncs stand still', async () => {
  const all = { reads: 0, renewed: 0 };
  await fc.assert(
    fc.asyncProperty(actions, async (schedule) => {
      const { reads, renewed } = await run(schedule);
      all.reads += reads;
      all.renewed += renewed;
    }),
    { numRuns: 400 },
  );
  assert.ok(all.reads > 400 && all.renewed > 100, JSON.stringify(all));
});

test('without looks at mim.state it would not', async () => {
  const blind = fc.asyncProperty(actions, async (schedule) => {
    await run(schedule, Number.POSITIVE_INFINITY);
  });
  await assert.rejects(fc.assert(blind, { numRuns: 400 }), (error: Error) => {
    assert.match(messageOf(error.cause), /newer than the point/);
    return true;
  });
});
