// The rules of the picture, in memory and by the thousand: runs, movelists, snapshots, merges and open mirrors
// against a naive history. No file and no service: a failure here is a failure of the rules themselves.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { TreeVrmo } from '@midmirror/vrmo';
import fc from 'fast-check';

const SECTOR = 512;
const SECTORS = 24;

type Step =
  | { kind: 'write'; start: number; length: number; zero: boolean }
  | { kind: 'sync'; share: number; close: boolean }
  | { kind: 'drop'; pick: number }
  | { kind: 'mirror'; pick: number };

interface Snapshot {
  seq: number;
  runs: ExtentMap[];
  /** While it is the newest: kept by syncs. */
  vrmo: TreeVrmo;
}

/** A disk of sectors; each holds the number of the write that made it, 0 for zeroes. */
class Model {
  readonly history: { start: number; length: number; zero: boolean }[] = [];
  mimSeq = 0;
  readonly mim = new Uint32Array(SECTORS);
  readonly saved: Uint32Array[] = [];
  snapshots: Snapshot[] = [];
  readonly mirrors: { seq: number; vrmo: TreeVrmo }[] = [];

  naive(seq: number): Uint32Array {
    const image = new Uint32Array(SECTORS);
    for (let i = 0; i < seq; i += 1) {
      const { start, length, zero } = this.history[i]!;
      image.fill(zero ? 0 : i + 1, start, start + length);
    }
    return image;
  }

  forward(after: number, seq: number): ExtentMap {
    const map = new ExtentMap();
    for (let i = after; i < seq; i += 1) {
      const { start, length, zero } = this.history[i]!;
      map.put(start * SECTOR, length * SECTOR, zero ? ExtentFlag.zero : 0, i + 1, 0, 0);
    }
    return map;
  }

  backward(from: Snapshot): ExtentMap {
    const map = new ExtentMap();
    for (const snapshot of this.snapshots.slice(this.snapshots.indexOf(from))) {
      for (const run of snapshot.runs)
        for (const c = run.cursor(); c.valid; c.next())
          map.putUnder(c.start, c.length, c.flags, c.source, c.offset, c.crc);
    }
    return map;
  }

  sync(share: number, close: boolean): void {
    const target = this.mimSeq + Math.floor((this.history.length - this.mimSeq) * share);
    if (target === this.mimSeq) return;
    const held = this.mirrors
      .filter((mirror) => mirror.seq > this.mimSeq && mirror.seq < target)
      .map((mirror) => mirror.seq);
    const station = Math.min(target, ...held);
    const pinned = this.mirrors.some((mirror) => mirror.seq === this.mimSeq);
    if (this.snapshots.length === 0 || close || pinned)
      if (this.snapshots.at(-1)?.seq !== this.mimSeq)
        this.snapshots.push({ seq: this.mimSeq, runs: [], vrmo: new TreeVrmo(new ExtentMap()) });
    const open = this.snapshots.at(-1)!;
    const moves = this.forward(this.mimSeq, station);
    const run = new ExtentMap();
    const ranges = open.vrmo.backwardMovelist(moves);
    for (let i = 0; i < ranges.length; i += 2) {
      this.saved.push(this.mim.slice(ranges[i]! / SECTOR, (ranges[i]! + ranges[i + 1]!) / SECTOR));
      run.put(ranges[i]!, ranges[i + 1]!, ExtentFlag.backward, this.saved.length - 1, 0, 0);
    }
    open.runs.push(run);
    open.vrmo.moveOffMim(run);
    for (const mirror of this.mirrors) if (mirror.seq < station) mirror.vrmo.moveOffMim(run);
    for (const c = moves.cursor(); c.valid; c.next()) {
      this.mim.fill(c.flags & ExtentFlag.zero ? 0 : c.source, c.start / SECTOR, c.end / SECTOR);
    }
    this.mimSeq = station;
    // Sources of the model are writes: those up to the MIM's point are recycled.
    for (const mirror of this.mirrors) if (mirror.seq >= station) mirror.vrmo.moveOntoMim(station);
  }

  drop(pick: number): void {
    const closed = this.snapshots
      .slice(0, -1)
      .filter((snapshot) => !this.mirrors.some((mirror) => mirror.seq === snapshot.seq));
    const snapshot = closed[pick % Math.max(1, closed.length)];
    if (snapshot === undefined) return;
    const at = this.snapshots.indexOf(snapshot);
    this.snapshots[at - 1]?.runs.push(...snapshot.runs);
    this.snapshots.splice(at, 1);
  }

  open(pick: number): void {
    const older = this.snapshots.filter((snapshot) => snapshot.seq < this.mimSeq);
    const window = this.history.length - this.mimSeq + 1;
    const at = pick % (older.length + window);
    const snapshot = older[at];
    if (snapshot !== undefined)
      this.mirrors.push({ seq: snapshot.seq, vrmo: new TreeVrmo(this.backward(snapshot)) });
    else {
      const seq = this.mimSeq + at - older.length;
      this.mirrors.push({ seq, vrmo: new TreeVrmo(this.forward(this.mimSeq, seq)) });
    }
  }

  read(vrmo: TreeVrmo): Uint32Array {
    const image = this.mim.slice();
    for (const c = vrmo.cursor(0); c.valid; c.next()) {
      for (let sector = c.start / SECTOR; sector < c.end / SECTOR; sector += 1) {
        const within = c.offset / SECTOR + sector - c.start / SECTOR;
        image[sector] =
          c.flags & ExtentFlag.zero
            ? 0
            : c.flags & ExtentFlag.backward
              ? this.saved[c.source]![within]!
              : c.source;
      }
    }
    return image;
  }

  check(): void {
    assert.deepEqual(this.mim, this.naive(this.mimSeq), 'the MIM');
    for (const { seq, vrmo } of this.mirrors)
      assert.deepEqual(this.read(vrmo), this.naive(seq), `the open mirror of ${seq}`);
    for (const snapshot of this.snapshots) {
      if (snapshot.seq < this.mimSeq)
        assert.deepEqual(
          this.read(new TreeVrmo(this.backward(snapshot))),
          this.naive(snapshot.seq),
          `snapshot ${snapshot.seq}`,
        );
    }
    for (let seq = this.mimSeq; seq <= this.history.length; seq += 3) {
      assert.deepEqual(
        this.read(new TreeVrmo(this.forward(this.mimSeq, seq))),
        this.naive(seq),
        `point ${seq}`,
      );
    }
  }
}

const write = fc
  .record({
    kind: fc.constant('write' as const),
    start: fc.nat(SECTORS - 1),
    length: fc.integer({ min: 1, max: 6 }),
    zero: fc.boolean(),
  })
  .map((step) => ({ ...step, length: Math.min(step.length, SECTORS - step.start) }));
const sync = fc.record({
  kind: fc.constant('sync' as const),
  share: fc.double({ min: 0, max: 1, noNaN: true }),
  close: fc.boolean(),
});
const drop = fc.record({ kind: fc.constant('drop' as const), pick: fc.nat(20) });
const mirror = fc.record({ kind: fc.constant('mirror' as const), pick: fc.nat(60) });
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { arbitrary: write, weight: 8 },
    { arbitrary: sync, weight: 3 },
    { arbitrary: drop, weight: 1 },
    { arbitrary: mirror, weight: 1 },
  ),
  { minLength: 1, maxLength: 40 },
);

test('every retained point equals the naive history', () => {
  const property = fc.property(steps, (walk) => {
    const model = new Model();
    for (const step of walk) {
      if (step.kind === 'write') model.history.push(step);
      else if (step.kind === 'sync') model.sync(step.share, step.close);
      else if (step.kind === 'drop') model.drop(step.pick);
      else model.open(step.pick);
      model.check();
    }
  });
  fc.assert(property, { numRuns: 20_000 });
});
