// A live disk whose head map has next to no room: almost all reads go by the runs of the catalogue. Runs come late,
// are merged and replaced; segments are recycled under reads; the process dies and the power goes. At every step
// what is read is compared with the naive twin, the list of all writes.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import type { WriteCommand } from '@midmirror/block-device';
import { type Catalog, deleteForwardRuns, insertRun, openEmbeddedCatalog } from '@midmirror/catalog';
import { LiveDisk, type RingSegment } from '@midmirror/live-disk';
import { ForgetfulFiles, SegmentReader, soleClaim } from '@midmirror/pool';
import { PageCache } from '@midmirror/runs';
import { OlderRuns } from '../../services/ingest/older-runs.ts';
import { TierMerger } from '../../services/mapping-index/tier-merger.ts';

const SIZE = 256 << 10;
const SEGMENT = 192 << 10;
const VOLUME = 'v1';

interface Write {
  start: number;
  length: number;
  fill: number;
}

interface Image {
  seq: number;
  bytes: Buffer;
}

class World {
  readonly random: SeededRandom;
  readonly files = new ForgetfulFiles();
  readonly #folder = mkdtempSync(`${existsSync('/dev/shm') ? '/dev/shm' : tmpdir()}/mim-head-`);
  catalog!: Catalog;
  merger!: TierMerger;
  disk!: LiveDisk;
  /** In the order of their numbers. */
  history: Write[] = [];
  durableSeq = 0;
  /** What the base holds. */
  floorSeq = 0;
  /** Sealed, and their runs not stored yet; oldest first. */
  unindexed: RingSegment[] = [];
  /** Segments up to this one have left the ring; the catalogue hears of it later. */
  recycledUpTo = 0;
  evictions = 0;
  olderReads = 0;
  #nowNs = 1_000n;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  /** As of now, and as of the base's point. */
  #image: Image = { seq: 0, bytes: Buffer.alloc(SIZE) };
  #base: Image = { seq: 0, bytes: Buffer.alloc(SIZE) };

  get image(): Buffer {
    this.#image = this.#moved(this.#image, this.history.length);
    return this.#image.bytes;
  }

  #baseImage(): Buffer {
    this.#base = this.#moved(this.#base, this.floorSeq);
    return this.#base.bytes;
  }

  #moved(from: Image, seq: number): Image {
    const { seq: at, bytes } = from.seq <= seq ? from : { seq: 0, bytes: Buffer.alloc(SIZE) };
    for (const { start, length, fill } of this.history.slice(at, seq))
      bytes.fill(fill, start, start + length);
    return { seq, bytes };
  }

  async start(): Promise<void> {
    this.catalog = await openEmbeddedCatalog(`${this.#folder}/catalog.db`);
    await this.open();
  }

  async open(): Promise<void> {
    this.merger = new TierMerger(this.catalog, (message) => assert.fail(message));
    await this.merger.start();
    const pages = new PageCache(this.catalog.db, 16 << 10);
    const older = new OlderRuns(VOLUME, this.catalog, pages);
    const find = older.find.bind(older);
    older.find = (start, length) => {
      this.olderReads += 1;
      return find(start, length);
    };
    const base = (): Buffer => this.#baseImage();
    this.disk = await LiveDisk.open({
      files: this.files.forProcess(),
      directory: 'forward',
      volumeId: VOLUME,
      sizeBytes: SIZE,
      segmentBytes: SEGMENT,
      segmentsMax: 90,
      requestBytesMax: 16 << 10,
      syncIntervalMs: 3_600_000,
      clock: { nowNs: () => (this.#nowNs += 5n) },
      floor: { seq: this.floorSeq, timeNs: 0n, anyFirst: false },
      claim: soleClaim(),
      base: {
        tryRead: (start, length, target, at) => {
          target.set(base().subarray(start, start + length), at);
          return true;
        },
        read: async (start, length, target, at) => target.set(base().subarray(start, start + length), at),
        span: (start, length) => ({
          lengthBytes: Math.min(512, length),
          hole: base()
            .subarray(start, start + Math.min(512, length))
            .every((byte) => byte === 0),
        }),
      },
      older,
      headBytesMax: this.random.pick([0, 8_000, 40_000]),
      listener: {
        durable: () => {},
        sealed: (segment) => {
          segment.log = null;
          this.unindexed.push(segment);
        },
        pressure: () => {},
        stateChanged: () => {},
      },
    });
    for (const segment of this.disk.segments) if (segment.sealed) segment.log = null;
    // As ingest does: what is live is told of again, what has gone while nobody looked is forgotten.
    this.unindexed = this.disk.segments.filter((segment) => segment.sealed);
    const first = this.disk.segments[0]?.number;
    if (first !== undefined) this.recycledUpTo = Math.max(this.recycledUpTo, first - 1);
  }

  // ── what a guest does ──────────────────────────────────────────────────────────────────────────────────

  async write(): Promise<void> {
    const fua = this.random.chance(0.1);
    const commands = Array.from({ length: 1 + this.random.below(8) }, () => this.#submit(fua));
    this.disk.kick();
    await Promise.all(commands);
    if (fua) this.durableSeq = this.history.length;
  }

  #submit(fua: boolean): Promise<void> {
    const length = 512 * (1 + this.random.below(this.random.chance(0.1) ? 32 : 8));
    const start = 512 * this.random.below((SIZE - length) / 512 + 1);
    const kind = this.random.chance(0.75) ? 'write' : this.random.pick(['zeroes', 'trim'] as const);
    const fill = kind === 'write' ? 1 + this.random.below(255) : 0;
    const payload = kind === 'write' ? [new Uint8Array(length).fill(fill)] : [];
    return new Promise((resolve, reject) => {
      const command: WriteCommand = {
        ...{ kind, startBytes: start, lengthBytes: length, fua, payload, payloadCount: payload.length },
        complete: (errno) => {
          if (errno !== 0) return reject(new Error(`write failed with ${errno}`));
          this.history.push({ start, length, fill });
          resolve();
        },
      };
      this.disk.submit(command);
    });
  }

  async flush(): Promise<void> {
    await this.disk.flush();
    this.durableSeq = this.history.length;
  }

  // ── what the services do ───────────────────────────────────────────────────────────────────────────────

  /** The index learns of some sealed segments. */
  async index(): Promise<void> {
    for (let count = this.random.below(6); count > 0 && this.unindexed.length > 0; count -= 1) {
      const segment = this.unindexed.shift()!;
      if (segment.number <= this.recycledUpTo) continue;
      const footer = (await (await SegmentReader.open(segment.file)).footer())!;
      const { number: source, firstSeq, lastSeq } = segment;
      const run = {
        ...{ volume_id: VOLUME, side: 'forward', source, snapshot: 0, data_bytes: 0 },
        ...{ from_seq: firstSeq, to_seq: lastSeq, extents: footer.extents.size },
      };
      await this.catalog.transaction((tx) => insertRun(tx, run, footer.extents));
    }
    this.merger.changed(VOLUME, 'forward');
  }

  /** The index hears of what has left the ring. */
  async forget(): Promise<void> {
    await this.catalog.transaction((tx) => deleteForwardRuns(tx, VOLUME, this.recycledUpTo));
  }

  async evict(): Promise<void> {
    if (await this.disk.evictOldest()) this.evictions += 1;
  }

  /** A sync has moved the base, to somewhere between. */
  async sync(): Promise<void> {
    await this.flush();
    const far = this.random.chance(0.2);
    const behind = this.durableSeq - this.floorSeq;
    this.floorSeq += far ? behind : this.random.below(Math.ceil(behind / 4) + 1);
    const gone = await this.disk.recycle(this.floorSeq);
    this.recycledUpTo = Math.max(this.recycledUpTo, ...gone);
  }

  async rotate(): Promise<void> {
    this.disk.rotate();
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  // ── what must hold ─────────────────────────────────────────────────────────────────────────────────────

  /** No write may be under way. */
  async read(label: string): Promise<void> {
    const expected = this.image;
    for (let i = 0; i < 6; i += 1) {
      const length = 512 * (1 + this.random.below(this.random.chance(0.2) ? SIZE / 512 : 24));
      const start = 512 * this.random.below((SIZE - length) / 512 + 1);
      const target = Buffer.alloc(length, 0xee);
      if (!this.disk.tryRead(start, length, target, 0)) await this.disk.read(start, length, target, 0);
      assert.ok(target.equals(expected.subarray(start, start + length)), `${label}: ${start}+${length}`);
    }
  }

  async checkHoles(): Promise<void> {
    const expected = this.image;
    for (let at = 0; at < SIZE; ) {
      for (const { lengthBytes, hole } of await this.disk.allocation(at, SIZE - at, 16)) {
        const wrong = hole && expected.subarray(at, at + lengthBytes).some((byte) => byte !== 0);
        assert.ok(!wrong, `${at}+${lengthBytes} is no hole`);
        at += lengthBytes;
      }
    }
  }

  async die(power: boolean): Promise<void> {
    if (power) this.files.powerLoss(this.random);
    else this.files.processDeath();
    await this.merger.stop();
    const atLeast = power ? this.durableSeq : this.history.length;
    await this.open();
    const { lastSeq } = this.disk;
    if (lastSeq < this.history.length) this.#image = { seq: 0, bytes: Buffer.alloc(SIZE) };
    assert.ok(lastSeq >= atLeast && lastSeq <= this.history.length, `${lastSeq} of at least ${atLeast} (I1)`);
    this.history.length = lastSeq;
    this.durableSeq = lastSeq;
    await this.read('after a death');
  }

  async restart(): Promise<void> {
    await this.stop();
    this.durableSeq = this.history.length;
    await this.start();
  }

  async step(): Promise<void> {
    const choices: [number, () => Promise<unknown>][] = [
      [40, () => this.write()],
      [25, () => this.rotate()],
      [15, () => this.index()],
      [10, () => this.evict()],
      [4, () => this.forget()],
      [5, () => this.sync()],
      [4, () => this.merger.idle()],
      [
        8,
        () =>
          Promise.all([
            this.random.chance(0.5) ? this.sync().then(() => this.forget()) : this.index(),
            this.evict(),
            this.read('under way'),
          ]),
      ],
      [3, () => this.checkHoles()],
      [2, () => this.restart()],
      [3, () => this.die(this.random.chance(0.5))],
    ];
    let at = this.random.below(choices.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, act] of choices) {
      at -= weight;
      if (at < 0) return void (await act());
    }
  }

  async stop(): Promise<void> {
    await this.disk.close();
    await this.merger.stop();
    await this.catalog.close();
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true });
  }
}

test('with next to no head map the live disk reads as the history says, whatever comes in between', async () => {
  const given = process.env['MIM_TEST_SEED'];
  const first = Number(given ?? 1);
  const last = given === undefined ? 14 : first;
  let evictions = 0;
  let olderReads = 0;
  for (let seed = first; seed <= last; seed += 1) {
    const world = new World(seed);
    try {
      await world.start();
      for (let i = 0; i < 200; i += 1) {
        await world.step();
        await world.read(`step ${i}`);
      }
      await world.checkHoles();
      await world.stop();
    } catch (error) {
      await world.catalog.close();
      throw new Error(`seed ${seed} fails (run with MIM_TEST_SEED=${seed})`, { cause: error });
    } finally {
      world.remove();
    }
    evictions += world.evictions;
    olderReads += world.olderReads;
  }
  assert.ok(evictions > 5 && olderReads > 100, `${evictions} evictions, ${olderReads} reads of runs`);
});

test('all that has left memory is recycled under a read: the base has it then', async () => {
  const world = new World(1);
  await world.start();
  try {
    for (let i = 0; i < 60; i += 1) {
      await world.write();
      await world.rotate();
    }
    await world.flush();
    while (world.unindexed.length > 0) await world.index();
    while (await world.disk.evictOldest());
    const all = Buffer.alloc(SIZE);
    const reading = world.disk.read(0, SIZE, all, 0);
    world.floorSeq = world.durableSeq;
    world.recycledUpTo = Math.max(...(await world.disk.recycle(world.floorSeq)));
    await world.forget();
    await reading;
    assert.ok(all.equals(world.image));
  } finally {
    await world.stop();
    world.remove();
  }
});

test('the catalogue away: writes go on, what has left memory fails clearly, all else is read', async () => {
  const world = new World(1);
  await world.start();
  const all = new Uint8Array(SIZE);
  try {
    for (let i = 0; i < 60; i += 1) {
      await world.write();
      await world.rotate();
    }
    await world.flush();
    while (world.unindexed.length > 0) await world.index();
    await world.merger.stop();
    while (await world.disk.evictOldest());
    assert.ok(world.disk.segmentsEvicted > 20);
    await world.catalog.close();
    await world.write();
    await world.flush();
    await assert.rejects(
      world.disk.read(0, SIZE, all, 0),
      (error: unknown) => error instanceof MidmirrorError && error.code === 'unavailable',
    );
    const { start, length } = world.history.at(-1)!;
    await world.disk.read(start, length, all, 0);
    assert.ok(Buffer.from(all.buffer, 0, length).equals(world.image.subarray(start, start + length)));
    await world.rotate();
    while (world.unindexed.length === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    await assert.rejects(world.disk.evictOldest());
  } finally {
    await world.disk.close();
    world.remove();
  }
});
