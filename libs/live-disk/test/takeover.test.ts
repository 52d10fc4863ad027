// Writers that fall asleep at any file operation, others that take the journal over, and those that wake up late, or
// never slept and were only cut off (I5). The naive twin is the list of writes: what was answered by whomever is there
// for ever, and nobody answers what its successor has not found (I1).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { claimEpoch, type EpochClaim, ForgetfulFiles, type PoolFile, type PoolFiles } from '@midmirror/pool';
import { LiveDisk } from '../index.ts';

const SIZE = 256 << 10;
const SEGMENT = 256 << 10;
const SEEDS = 50;
const STEPS = 150;

interface Write {
  start: number;
  length: number;
  fill: number;
}

/** Where a process stands still. */
class Gate {
  #waiting: (() => void)[] = [];
  asleep = false;
  /** After so many passages it falls asleep; null: it does not. */
  fuse: number | null = null;

  async pass(): Promise<void> {
    if (this.fuse !== null) {
      this.fuse -= 1;
      if (this.fuse < 0) {
        this.fuse = null;
        this.asleep = true;
      }
    }
    if (this.asleep) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  wake(): void {
    this.asleep = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Files of a process that may stop before and after each operation that it waits for. */
function filesBehind(gate: Gate, files: PoolFiles): PoolFiles {
  const gated = <A extends unknown[], R>(act: (...args: A) => Promise<R>) => {
    return async (...args: A): Promise<R> => {
      await gate.pass();
      try {
        return await act(...args);
      } finally {
        await gate.pass();
      }
    };
  };
  const fileBehind = (file: PoolFile): PoolFile => ({
    ...file,
    ...{ read: gated(file.read), writev: gated(file.writev), datasync: gated(file.datasync) },
    ...{ allocate: gated(file.allocate), truncate: gated(file.truncate), size: gated(file.size) },
    ...{ punchHole: gated(file.punchHole), close: gated(file.close) },
  });
  return {
    open: gated(async (path, mode) => fileBehind(await files.open(path, mode))),
    exists: gated((path) => files.exists(path)),
    rename: gated((from, to) => files.rename(from, to)),
    unlink: gated((path) => files.unlink(path)),
    makeDirectory: gated((path: string) => files.makeDirectory(path)),
    removeDirectory: gated((path) => files.removeDirectory(path)),
    list: gated((path) => files.list(path)),
    listSync: (path) => files.listSync(path),
    syncDirectory: gated((path) => files.syncDirectory(path)),
  };
}

class Owner {
  readonly gate = new Gate();
  disk!: LiveDisk;
  claim!: EpochClaim;
  /** Writes before its own. */
  base = 0;
  submitted: Write[] = [];
  answered = 0;
  /** Of what it submitted, what its successor has found; null: it has none yet. */
  found: number | null = null;
  underWay: Promise<void>[] = [];
  lost = false;
}

class World {
  readonly random: SeededRandom;
  readonly files = new ForgetfulFiles();
  readonly owners: Owner[] = [];
  /** Writes of all owners before the present one. */
  history: Write[] = [];
  floorSeq = 0;
  ms = 0;
  nowNs = 1000n;
  readonly tally = { takeovers: 0, late: 0, answered: 0 };

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  get owner(): Owner {
    return this.owners.at(-1)!;
  }

  image(seq: number): Uint8Array {
    const bytes = new Uint8Array(SIZE);
    const all = [...this.history, ...(this.owners.at(-1)?.submitted ?? [])];
    for (const { start, length, fill } of all.slice(0, seq)) bytes.fill(fill, start, start + length);
    return bytes;
  }

  async takeOver(): Promise<void> {
    const before = this.owners.at(-1);
    const next = new Owner();
    const files = filesBehind(next.gate, this.files.forProcess());
    next.claim = await claimEpoch({
      ...{ files, directory: 'claims', holder: `owner ${this.owners.length}`, alone: false },
      epochSeen: 0,
      monotonicMs: () => this.ms,
      pause: async (ms) => {
        // Who was only cut off goes on for a while.
        for (let passed = 0; passed < ms; passed += ms / 5) {
          if (before !== undefined && this.random.chance(0.5)) this.write(before);
          await turn();
          this.ms += ms / 5;
        }
      },
    });
    next.disk = await this.#open(next, files);
    if (before !== undefined) {
      this.tally.takeovers += 1;
      before.found = next.disk.lastSeq - before.base;
      const { answered, found } = before;
      assert.ok(answered <= found, `${answered} writes were answered, ${found} are found (I1)`);
      assert.ok(found <= before.submitted.length, 'nothing is invented');
      this.history.push(...before.submitted.slice(0, found));
      next.base = this.history.length;
    }
    this.owners.push(next);
    await this.makeRoom(next);
    await this.check('taken over');
  }

  #open(owner: Owner, files: PoolFiles): Promise<LiveDisk> {
    const base = this.image(this.floorSeq);
    let baseSeq = this.floorSeq;
    const bytes = (): Uint8Array => {
      if (baseSeq !== this.floorSeq) base.set(this.image(this.floorSeq));
      baseSeq = this.floorSeq;
      return base;
    };
    const read = (start: number, length: number, target: Uint8Array, at: number): boolean => {
      target.set(bytes().subarray(start, start + length), at);
      return true;
    };
    return LiveDisk.open({
      ...{
        files,
        directory: 'forward',
        volumeId: 'v1',
        sizeBytes: SIZE,
        segmentBytes: SEGMENT,
        segmentsMax: 8,
      },
      ...{ requestBytesMax: 64 << 10, syncIntervalMs: 3_600_000, older: null, claim: owner.claim },
      headBytesMax: Number.POSITIVE_INFINITY,
      clock: { nowNs: () => (this.nowNs += 5n) },
      floor: { seq: this.floorSeq, timeNs: 0n, anyFirst: false },
      base: {
        tryRead: read,
        read: async (start, length, target, at) => void read(start, length, target, at),
        span: (_start, length) => ({ lengthBytes: length, hole: false }),
      },
      listener: {
        durable: () => {},
        sealed: (segment) => {
          segment.log = null;
        },
        pressure: (share) => {
          if (share <= 0.5) return;
          this.makeRoom(owner).catch((error: unknown) => {
            if (!owner.lost && owner.found === null) throw error;
          });
        },
        stateChanged: (state) => {
          if (state === 'lost') owner.lost = true;
        },
      },
    });
  }

  /** The present owner's ring fills: what was answered goes to the base. */
  async makeRoom(owner: Owner): Promise<void> {
    const answered = owner.base + owner.answered;
    await owner.disk.flush();
    if (owner !== this.owners.at(-1)) return;
    this.floorSeq = Math.max(this.floorSeq, answered);
    await owner.disk.recycle(this.floorSeq);
  }

  write(owner: Owner): void {
    if (owner.gate.asleep) return;
    const length = 512 * (1 + this.random.below(this.random.chance(0.3) ? 128 : 16));
    const start = 512 * this.random.below((SIZE - length) / 512 + 1);
    const write = { start, length, fill: 1 + this.random.below(255) };
    const index = owner.submitted.push(write);
    const fua = this.random.chance(0.3);
    owner.underWay.push(
      new Promise((resolve, reject) => {
        owner.disk.submit({
          ...{ kind: 'write', startBytes: start, lengthBytes: length, fua },
          ...{ payload: [new Uint8Array(length).fill(write.fill)], payloadCount: 1 },
          complete: (errno) => {
            if (errno === 0) {
              this.tally.answered += 1;
              owner.answered = Math.max(owner.answered, index);
              if (owner.found !== null && index > owner.found)
                return reject(new Error(`write ${index} was answered by one that had lost the journal`));
              return resolve();
            }
            if (!owner.lost && owner.found === null)
              return reject(new Error(`the owner refused a write with ${errno}`));
            this.tally.late += 1;
            resolve();
          },
        });
        owner.disk.kick();
      }),
    );
  }

  async check(label: string): Promise<void> {
    const { owner } = this;
    owner.gate.wake();
    await Promise.all(owner.underWay.splice(0));
    const expected = this.image(owner.base + owner.submitted.length);
    assert.equal(owner.disk.lastSeq, owner.base + owner.submitted.length, label);
    const bytes = new Uint8Array(SIZE);
    await owner.disk.read(0, SIZE, bytes, 0);
    assert.ok(Buffer.from(bytes).equals(Buffer.from(expected)), `${label}: the disk gives the history`);
  }

  /** What a sync does: what is durable goes to the base, and leaves the ring. */
  async recycle(): Promise<void> {
    await this.check('before recycling');
    const { owner } = this;
    await owner.disk.flush();
    this.floorSeq += this.random.below(owner.base + owner.submitted.length - this.floorSeq + 1);
    if (this.random.chance(0.5)) owner.disk.rotate();
    await owner.disk.recycle(this.floorSeq);
    // Who has slept may have been told of the same before it fell asleep.
    const [other] = this.owners.slice(0, -1).filter(({ gate }) => !gate.asleep);
    if (other !== undefined && this.random.chance(0.3))
      await other.disk.recycle(this.floorSeq).catch(() => {});
  }

  /** In the middle of closing a segment and making the next ones. */
  async fallAsleepMakingSegments(): Promise<void> {
    const { owner } = this;
    if (!owner.gate.asleep) {
      owner.gate.fuse = this.random.below(20);
      owner.disk.rotate();
      await turn();
      owner.gate.fuse = null;
      owner.gate.asleep = true;
    }
    await this.takeOver();
    if (this.random.chance(0.5)) owner.gate.wake();
  }

  async step(): Promise<void> {
    const { random } = this;
    this.ms += random.below(200);
    const any = random.pick(this.owners);
    const choice = random.below(100);
    if (choice < 42) this.write(this.owner);
    else if (choice < 55) this.write(any);
    else if (choice < 60) await this.fallAsleepMakingSegments();
    else if (choice < 68) any.gate.asleep = true;
    else if (choice < 76) any.gate.wake();
    else if (choice < 84) any.disk.flush().catch(() => {});
    else if (choice < 91) await this.recycle();
    else if (choice < 95) await this.takeOver();
    else await this.check('live');
    await turn();
  }

  async end(): Promise<void> {
    for (const { gate } of this.owners) gate.wake();
    this.ms += 10_000;
    await this.check('at the end');
    for (const owner of this.owners) await Promise.all(owner.underWay);
    await this.takeOver();
    for (const { disk } of this.owners) await disk.close().catch(() => {});
  }
}

test('whoever takes a journal over finds all that was answered; who has lost it answers nothing and harms nothing', async () => {
  const first = Number(process.env['MIM_TEST_SEED'] ?? 1);
  const tally = { takeovers: 0, late: 0, answered: 0 };
  for (let seed = first; seed < first + SEEDS; seed += 1) {
    const world = new World(seed);
    try {
      await world.takeOver();
      for (let i = 0; i < STEPS; i += 1) await world.step();
      await world.end();
    } catch (error) {
      throw new Error(`seed ${seed} fails (run with MIM_TEST_SEED=${seed})`, { cause: error });
    }
    for (const key of ['takeovers', 'late', 'answered'] as const) tally[key] += world.tally[key];
  }
  assert.ok(tally.takeovers > SEEDS && tally.late > SEEDS && tally.answered > SEEDS, JSON.stringify(tally));
});
