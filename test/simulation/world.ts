// All services in one process on one file layer, a guest that writes, and a naive history of what it wrote. The
// world can be killed at any change of a file, at any step of a sync, with or without the power going.
import assert from 'node:assert/strict';
import type { Catalog } from '@midmirror/catalog';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import type { BlockDevice, OpenedExport, WriteCommand } from '@midmirror/block-device';
import { ask, type Bus, openEmbeddedBus } from '@midmirror/bus';
import { snapshotsOf } from '@midmirror/catalog';
import { parsePolicy } from '@midmirror/policy';
import { printTime } from '@midmirror/point';
import { ForgetfulFiles, nodeFiles, type PoolFiles } from '@midmirror/pool';
import { checkHistory, type Historied } from './check-history.ts';
import {
  type CatalogKind,
  type CatalogStorage,
  catalogStorage,
} from '../../libs/catalog/test/with-catalog.ts';
import { openServices, type Services, startServices, stopServices } from './services.ts';

export const SIZE = 192 << 10;
const SEGMENT = 256 << 10;
const SEGMENTS_MAX = 8;
const REQUEST_MAX = 48 << 10;

export interface Write {
  start: number;
  length: number;
  fill: number;
}

interface CloneTwin {
  seq: number;
  /** Asked for and not answered: it may be there or not. */
  deleting: boolean;
  submitted: Write[];
  answered: number;
  flushed: number;
}

export type Death = 'process' | 'power';

export class World {
  readonly random: SeededRandom;
  readonly forgetful: ForgetfulFiles | null;
  readonly #directory: string;
  readonly #catalogKind: CatalogKind | undefined;
  #catalog: CatalogStorage | null = null;
  readonly marks: { name: string; seq: number }[] = [];
  readonly clones = new Map<string, CloneTwin>();
  readonly mirrors: { seq: number; opened: OpenedExport }[] = [];
  /** Writes in the order of their submission, which is that of their numbers. */
  submitted: Write[] = [];
  answered = 0;
  flushed = 0;
  volumeId = '';
  running!: Services;
  /** Killed at this place (`sync:prepared`, …) or after so many changes of files. */
  killAt: { place: string; death: Death } | { changes: number; death: Death } | null = null;
  /** Lets a test look on at what is asked of the catalogue. */
  watched: (catalog: Catalog) => Catalog = (catalog) => catalog;
  openBus: (catalog: Catalog) => Bus = openEmbeddedBus;
  leaseMs = 5000;
  log: (message: string) => void = () => {};
  /** Of the maps that live reads go by. */
  readonly headMapBytesMax: number;
  /** How much later it is at each look. */
  clockStepNs = 1000n;
  #nowNs = 1_700_000_000_000_000_000n;
  #dead: Promise<Death> = new Promise(() => {});
  #die: (death: Death) => void = () => {};
  #names = 0;

  constructor(seed: number, realFiles: boolean, catalogKind?: CatalogKind) {
    this.#catalogKind = catalogKind;
    this.random = new SeededRandom(seed);
    // Every other world keeps in its head maps only what the index has not got yet.
    this.headMapBytesMax = seed % 2 === 0 ? 0 : 64 << 20;
    this.forgetful = realFiles ? null : new ForgetfulFiles();
    // Only the catalogue lies there when the pool is in memory: then in memory too, where commits cost nothing.
    const parent = !realFiles && existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
    this.#directory = mkdtempSync(`${parent}/mim-world-`);
  }

  image(seq: number): Buffer {
    return imageOf(Buffer.alloc(SIZE), this.submitted.slice(0, seq));
  }

  cloneImage(clone: CloneTwin): Buffer {
    return imageOf(this.image(clone.seq), clone.submitted);
  }

  async start(): Promise<void> {
    this.#dead = new Promise((resolve) => {
      this.#die = resolve;
    });
    const files: PoolFiles = this.forgetful === null ? nodeFiles() : this.forgetful.forProcess();
    if (this.forgetful !== null) this.forgetful.beforeChange = () => this.#countChange();
    const poolDirectory = this.forgetful === null ? `${this.#directory}/pool` : '/pool';
    this.#catalog ??= await catalogStorage(this.#catalogKind, this.#directory);
    this.running = await openServices({
      files,
      poolDirectory,
      openCatalog: this.#catalog.open,
      watched: this.watched,
      openBus: this.openBus,
      leaseMs: this.leaseMs,
      clock: { nowNs: () => (this.#nowNs += this.clockStepNs) },
      log: (message) => this.log(message),
      reached: (place) => this.#place(place),
      segmentBytes: SEGMENT,
      journalBytesMax: SEGMENTS_MAX * SEGMENT,
      requestBytesMax: REQUEST_MAX,
      // Less than the index has: pages come and go.
      indexCacheBytes: 64 << 10,
      headMapBytesMax: this.headMapBytesMax,
    });
    await startServices(this.running);
    if (this.volumeId === '') {
      const policy = parsePolicy({
        snapshotEverySeconds: 1,
        keepLast: 2,
        keepHourly: 0,
        keepDaily: 0,
        keepWeekly: 0,
        keepMonthly: 0,
        keepYearly: 0,
      });
      const made = await ask(this.running.bus, 'ingest.create-volume', {
        name: 'db',
        sizeBytes: SIZE,
        policy,
      });
      this.volumeId = made.volumeId;
    }
  }

  async stop(): Promise<void> {
    for (const { opened } of this.mirrors.splice(0)) await opened.release();
    await stopServices(this.running);
  }

  /** After a failure: lets go of what would keep the process alive. */
  async abandon(): Promise<void> {
    void this.running?.bus.close();
    await this.running?.catalog.close();
  }

  async remove(): Promise<void> {
    await this.#catalog?.remove();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Does `act`; if the world dies under it, starts again and checks what survived. True: it died. */
  async survive(act: () => Promise<void>): Promise<boolean> {
    const acting = act().then(
      () => null,
      (error: unknown) => error,
    );
    const outcome = await Promise.race([acting, this.#dead]);
    if (outcome !== 'process' && outcome !== 'power') {
      if (outcome !== null) throw outcome;
      return false;
    }
    await this.#comeBack(outcome);
    return true;
  }

  kill(death: Death): void {
    this.killAt = null;
    if (this.forgetful === null) throw new Error('real files do not die');
    if (death === 'process') this.forgetful.processDeath();
    else this.forgetful.powerLoss(this.random);
    this.#die(death);
  }

  /** The world ended some time ago: what it still does must have no effect. */
  async #comeBack(death: Death): Promise<void> {
    this.mirrors.length = 0;
    const { catalog, bus, ingest, synchronizer } = this.running;
    void bus.close();
    await catalog.close();
    // Only to end their timers: every use of a file or of the catalogue fails.
    void Promise.allSettled([ingest.stop(), synchronizer.stop()]);
    if (this.forgetful !== null) this.forgetful.beforeChange = () => {};
    await this.start();
    const status = await ask(this.running.bus, 'ingest.status', { volumeId: this.volumeId });
    const atLeast = death === 'process' ? this.answered : this.flushed;
    assert.ok(status.seq >= atLeast, `${status.seq} writes survived of at least ${atLeast} (I1)`);
    assert.ok(status.seq <= this.submitted.length, 'nothing is invented');
    this.submitted.length = status.seq;
    this.answered = status.seq;
    this.flushed = status.seq;
    for (const [name, clone] of this.clones) await this.#cloneSurvived(name, clone, death);
    await this.checkAll();
  }

  async #cloneSurvived(name: string, clone: CloneTwin, death: Death): Promise<void> {
    if (clone.deleting && !this.running.mapping.clones.has(name)) {
      this.clones.delete(name);
      return;
    }
    clone.deleting = false;
    const opened = await this.running.mapping.open(name);
    const bytes = await readAll(opened.device);
    await opened.release();
    // A clone's disk has no number to ask for: one of the possible prefixes must be what is there.
    const least = death === 'process' ? clone.answered : clone.flushed;
    for (let count = clone.submitted.length; count >= least; count -= 1) {
      if (!imageOf(this.image(clone.seq), clone.submitted.slice(0, count)).equals(bytes)) continue;
      clone.submitted.length = count;
      clone.answered = count;
      clone.flushed = count;
      return;
    }
    assert.fail(`clone ${name} holds no prefix of at least ${least} of its ${clone.submitted.length} writes`);
  }

  #place(place: string): void {
    if (this.killAt === null || !('place' in this.killAt) || this.killAt.place !== place) return;
    this.kill(this.killAt.death);
    // A sync stops there; the journal's callbacks are told nothing, its next use of a file fails.
    if (place.startsWith('sync:')) throw new MidmirrorError('io', 'the machine went away');
  }

  #countChange(): void {
    if (this.killAt === null || !('changes' in this.killAt)) return;
    this.killAt.changes -= 1;
    if (this.killAt.changes > 0) return;
    this.kill(this.killAt.death);
    throw new MidmirrorError('io', 'the machine went away');
  }

  // ── what guests and operators do ───────────────────────────────────────────────────────────────────────

  newName(prefix: string): string {
    this.#names += 1;
    return `${prefix}${this.#names}`;
  }

  async write(): Promise<void> {
    const opened = await this.running.ingest.open('db');
    const fua = this.random.chance(0.1);
    await this.#writes(opened.device, this.submitted, fua, (count) => {
      this.answered += count;
      if (fua) this.flushed = this.answered;
    });
    await opened.release();
  }

  async writeClone(name: string): Promise<void> {
    const clone = this.clones.get(name)!;
    const opened = await this.running.mapping.open(name);
    const fua = this.random.chance(0.2);
    await this.#writes(opened.device, clone.submitted, fua, (count) => {
      clone.answered += count;
      if (fua) clone.flushed = clone.answered;
    });
    await opened.release();
  }

  async #writes(
    device: BlockDevice,
    submitted: Write[],
    fua: boolean,
    answered: (count: number) => void,
  ): Promise<void> {
    const count = 1 + this.random.below(5);
    const commands = Array.from({ length: count }, () => this.#command(device, submitted, fua, answered));
    device.kick();
    const outcomes = await Promise.allSettled(commands);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #command(
    device: BlockDevice,
    submitted: Write[],
    fua: boolean,
    answered: (count: number) => void,
  ): Promise<void> {
    const sectors = 1 + this.random.below(this.random.chance(0.1) ? REQUEST_MAX / 512 : 16);
    const length = 512 * sectors;
    const start = 512 * this.random.below((SIZE - length) / 512 + 1);
    const kind = this.random.chance(0.8) ? 'write' : this.random.pick(['zeroes', 'trim'] as const);
    const fill = kind === 'write' ? 1 + this.random.below(255) : 0;
    const write: Write = { start, length, fill };
    return new Promise((resolve, reject) => {
      const command: WriteCommand = {
        kind,
        startBytes: start,
        lengthBytes: length,
        fua,
        payload: kind === 'write' ? [new Uint8Array(length).fill(fill)] : [],
        payloadCount: kind === 'write' ? 1 : 0,
        complete: (errno) => {
          if (errno !== 0) {
            // Refused for space is never stored and has no number. After another error it may be there or not.
            const at = errno === 28 ? submitted.indexOf(write) : -1;
            if (at >= 0) submitted.splice(at, 1);
            return reject(
              new MidmirrorError(errno === 28 ? 'no-space' : 'io', `a write was refused with ${errno}`),
            );
          }
          answered(1);
          resolve();
        },
      };
      submitted.push(write);
      device.submit(command);
    });
  }

  /** The disk has only so much space left until it is given back. */
  squeeze(): void {
    if (this.forgetful !== null)
      this.forgetful.spaceBytes = this.forgetful.usedBytes() + this.random.below(400 << 10);
  }

  get squeezed(): boolean {
    return this.forgetful !== null && this.forgetful.spaceBytes !== Number.POSITIVE_INFINITY;
  }

  /** Space returns: the volume takes writes again by itself. */
  async giveSpace(): Promise<void> {
    if (this.forgetful === null || !this.squeezed) return;
    this.forgetful.spaceBytes = Number.POSITIVE_INFINITY;
    for (let i = 0; ; i += 1) {
      const { state } = await ask(this.running.bus, 'ingest.status', { volumeId: this.volumeId });
      if (state === 'open') break;
      assert.ok(i < 400, `the volume is ${state} though there is space`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    // Clones look again twice a second too, and have no status to ask for.
    if (this.clones.size > 0) await new Promise((resolve) => setTimeout(resolve, 700));
  }

  async flush(): Promise<void> {
    const opened = await this.running.ingest.open('db');
    const covered = this.answered;
    await opened.device.flush();
    this.flushed = Math.max(this.flushed, covered);
    await opened.release();
  }

  async mark(): Promise<void> {
    const name = this.newName('mark');
    const { seq } = await ask(this.running.bus, 'ingest.mark', {
      volumeId: this.volumeId,
      name,
      kind: this.random.pick(['bookmark', 'application', 'group']),
    });
    this.flushed = Math.max(this.flushed, seq);
    this.marks.push({ name, seq });
  }

  async sync(): Promise<void> {
    const { mim } = await this.retained();
    const latest = this.answered;
    const upToSeq = this.random.chance(0.4) ? null : mim + this.random.below(latest - mim + 1);
    await ask(this.running.bus, 'synchronizer.sync', {
      volumeId: this.volumeId,
      upToSeq,
      closeSnapshot: this.random.chance(0.3),
    });
  }

  async retention(): Promise<void> {
    if (this.random.chance(0.5)) {
      await ask(this.running.bus, 'synchronizer.retention', { volumeId: this.volumeId, dryRun: false });
      return;
    }
    const { snapshots } = await this.retained();
    const closed = snapshots.filter((row) => row.state === 'closed');
    if (closed.length === 0) return;
    const { snapshot } = this.random.pick(closed);
    await ask(this.running.bus, 'synchronizer.drop-snapshot', { volumeId: this.volumeId, snapshot }).catch(
      (error: unknown) => {
        if (!(error instanceof MidmirrorError && error.code === 'conflict')) throw error; // pinned: rightly refused
      },
    );
  }

  async retained(): Promise<{
    mim: number;
    latest: number;
    snapshots: { snapshot: number; seq: number; state: string }[];
  }> {
    const { catalog, bus } = this.running;
    const volume = await catalog.db
      .selectFrom('volume')
      .selectAll()
      .where('id', '=', this.volumeId)
      .executeTakeFirstOrThrow();
    // From when a sync is prepared on, older points of the window are no points of their own.
    const prepared = await catalog.db
      .selectFrom('sync')
      .select('to_seq')
      .where('volume_id', '=', this.volumeId)
      .where('state', '=', 'prepared')
      .executeTakeFirst();
    const snapshots = await snapshotsOf(catalog.db, this.volumeId);
    const status = await ask(bus, 'ingest.status', { volumeId: this.volumeId });
    return { mim: prepared?.to_seq ?? volume.mim_seq, latest: status.seq, snapshots };
  }

  async somePoint(): Promise<number> {
    const { mim, latest, snapshots } = await this.retained();
    const older = snapshots.filter((row) => row.seq < mim);
    if (older.length > 0 && this.random.chance(0.5)) return this.random.pick(older).seq;
    return mim + this.random.below(latest - mim + 1);
  }

  /** Opens a point that may have gone when it gets there; null then. */
  async openPoint(seq: number): Promise<OpenedExport | null> {
    try {
      return await this.running.mapping.open(`db@seq:${seq}`);
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'point-unavailable') return null;
      throw error;
    }
  }

  async openMirror(): Promise<void> {
    const seq = await this.somePoint();
    const opened = await this.openPoint(seq);
    if (opened !== null) this.mirrors.push({ seq, opened });
  }

  async closeMirror(): Promise<void> {
    const at = this.random.below(this.mirrors.length);
    const [mirror] = this.mirrors.splice(at, 1);
    await mirror?.opened.release();
  }

  /** Reads open mirrors piece by piece: for use while other things happen. */
  async readMirrors(): Promise<void> {
    for (const { seq, opened } of [...this.mirrors]) {
      const expected = this.image(seq);
      for (let i = 0; i < 12; i += 1) {
        const length = 512 * (1 + this.random.below(64));
        const start = 512 * this.random.below((SIZE - length) / 512 + 1);
        const target = Buffer.alloc(length);
        if (!opened.device.tryRead(start, length, target, 0))
          await opened.device.read(start, length, target, 0);
        if (!this.mirrors.some((mirror) => mirror.opened === opened)) return; // closed meanwhile
        assert.ok(
          target.equals(expected.subarray(start, start + length)),
          `mirror of ${seq} reads ${start}+${length} as it was (I3)`,
        );
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    }
  }

  /** What two open mirrors are said to have in common is the same: for use while other things happen. */
  async compareMirrors(): Promise<void> {
    if (this.mirrors.length < 2) return;
    const [one, other] = [this.random.pick(this.mirrors), this.random.pick(this.mirrors)];
    const context = await one.opened.contexts!.open(`midmirror:changed-since:seq:${other.seq}`);
    const [left, right] = [this.image(one.seq), this.image(other.seq)];
    for (let at = 0; at < SIZE; ) {
      for (const { lengthBytes, flags } of await context!.blockStatus(at, SIZE - at, 4)) {
        const same = left.compare(right, at, at + lengthBytes, at, at + lengthBytes) === 0;
        assert.ok(flags === 1 || same, `${at}+${lengthBytes} differs between ${one.seq} and ${other.seq}`);
        at += lengthBytes;
      }
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await context!.release();
  }

  async createClone(): Promise<void> {
    const seq = await this.somePoint();
    const name = this.newName('clone');
    try {
      await ask(this.running.bus, 'mapping-index.create-clone', {
        volumeId: this.volumeId,
        at: `seq:${seq}`,
        name,
      });
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'point-unavailable') return;
      throw error;
    }
    this.clones.set(name, { seq, deleting: false, submitted: [], answered: 0, flushed: 0 });
  }

  async deleteClone(name: string): Promise<void> {
    this.clones.get(name)!.deleting = true;
    await ask(this.running.bus, 'mapping-index.delete-clone', { name });
    this.clones.delete(name);
  }

  // ── what must hold ─────────────────────────────────────────────────────────────────────────────────────

  /** Every snapshot, every mark in the window, some points of the window and all clones read as they were. */
  async checkAll(): Promise<void> {
    const { mim, latest, snapshots } = await this.retained();
    assert.equal(latest, this.submitted.length, 'the volume stands where its history ends');
    const seqs = new Set([mim, latest, ...snapshots.map((row) => row.seq)]);
    for (const mark of this.marks) if (mark.seq >= mim) seqs.add(mark.seq);
    for (let i = 0; i < 3; i += 1) seqs.add(mim + this.random.below(latest - mim + 1));
    for (const seq of seqs) await this.checkPoint(seq);
    await this.checkTimes(mim, latest);
    await checkHistory(this.#historied());
    const live = await this.running.ingest.open('db');
    assert.ok((await readAll(live.device)).equals(this.image(latest)), 'the live volume');
    await this.checkHoles(live.device, latest);
    await live.release();
    for (const [name, clone] of this.clones) {
      const opened = await this.running.mapping.open(name);
      assert.ok(
        (await readAll(opened.device)).equals(this.cloneImage(clone)),
        `clone ${name} of ${clone.seq}`,
      );
      await opened.release();
    }
    await this.checkRefused(
      snapshots.map((row) => row.seq),
      mim,
    );
  }

  #historied(): Historied {
    return {
      random: this.random,
      bus: this.running.bus,
      volumeId: this.volumeId,
      sizeBytes: SIZE,
      writesAfter: (seq) => this.submitted.slice(seq),
      same: (one, other, start, end) =>
        this.image(one).compare(this.image(other), start, end, start, end) === 0,
      snapshotSeqs: async () => (await this.retained()).snapshots.map((row) => row.seq),
    };
  }

  async checkPoint(seq: number): Promise<void> {
    const opened = await this.openPoint(seq);
    assert.ok(opened !== null, `point ${seq} is kept`);
    try {
      assert.ok((await readAll(opened.device)).equals(this.image(seq)), `point ${seq} reads as it was (I3)`);
      await this.checkHoles(opened.device, seq);
    } finally {
      await opened.release();
    }
  }

  /** What is called a hole is zero in the history too. */
  async checkHoles(device: BlockDevice, seq: number): Promise<void> {
    const expected = this.image(seq);
    let at = 0;
    while (at < SIZE) {
      for (const { lengthBytes, hole } of await device.allocation(at, SIZE - at, 16)) {
        const wrong = hole && expected.subarray(at, at + lengthBytes).some((byte) => byte !== 0);
        assert.ok(!wrong, `${at}+${lengthBytes} is no hole at point ${seq}`);
        at += lengthBytes;
      }
    }
  }

  /** A write is found by its own time, and a nanosecond earlier the one before it. */
  async checkTimes(mim: number, latest: number): Promise<void> {
    const at = async (text: string): Promise<{ seq: number; timeNs: string }> =>
      ask(this.running.bus, 'mapping-index.resolve', { volumeId: this.volumeId, at: text });
    for (let i = 0; i < 3 && latest > mim; i += 1) {
      const seq = mim + 1 + this.random.below(latest - mim);
      const timeNs = BigInt((await at(`seq:${seq}`)).timeNs);
      assert.equal((await at(printTime(timeNs))).seq, seq, 'a write is found by its time');
      assert.equal((await at(printTime(timeNs - 1n))).seq, seq - 1, 'just before it there is the one before');
    }
  }

  /** A point between snapshots is refused, never answered with another (I3). */
  async checkRefused(kept: readonly number[], mim: number): Promise<void> {
    for (let seq = 0; seq < mim; seq += 7) {
      if (kept.includes(seq)) continue;
      await assert.rejects(
        this.running.mapping.open(`db@seq:${seq}`),
        (error: MidmirrorError) => error.code === 'point-unavailable',
      );
    }
  }
}

function imageOf(bytes: Buffer, writes: readonly Write[]): Buffer {
  for (const { start, length, fill } of writes) bytes.fill(fill, start, start + length);
  return bytes;
}

async function readAll(device: BlockDevice): Promise<Buffer> {
  const bytes = Buffer.alloc(SIZE, 0xee);
  await device.read(0, SIZE, bytes, 0);
  return bytes;
}
