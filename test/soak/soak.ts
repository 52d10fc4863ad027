// The soak: a long random history of one volume through all services on real files. While the guest writes, syncs,
// the policy's retention, merges, mirrors, clones and restarts go on beside it; what is read is compared with the twin.
// The guest's writes follow from the seed; what meets what is the machine's timing.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { verifyVolume } from '@midmirror/audit';
import { MidmirrorError, SeededRandom } from '@midmirror/basis';
import type { BlockDevice, OpenedExport } from '@midmirror/block-device';
import { ask } from '@midmirror/bus';
import { openEmbeddedCatalog, snapshotsOf, volumeById } from '@midmirror/catalog';
import type { Requests } from '@midmirror/events';
import { parsePolicy } from '@midmirror/policy';
import { nodeFiles } from '@midmirror/pool';
import { checkHistory } from '../simulation/check-history.ts';
import { openServices, type Services, startServices, stopServices } from '../simulation/services.ts';
import { Tally } from './tally.ts';
import { assertSectors, bytesOfWrite, SECTOR, SECTORS, SIZE, Twin, type Versions } from './twin.ts';

const SEGMENT_BYTES = 512 << 10;
const JOURNAL_BYTES_MAX = 64 << 20;
const WRITE_SECTORS_MAX = 24;
const DEPTH = 64;
/** The volume's clock: the policy speaks of hours and days, and the soak takes minutes. */
const SECONDS_PER_WRITE = 3;
const ROUND_WRITES_MAX = 2000;
const MIRRORS_MAX = 12;
const CLONES_MAX = 3;
/** Numbers of writes to clones, far from those of the volume. */
const CLONE_VERSIONS = 2 ** 31;
const SAY_MS = 5000;

/** A soak of so many writes keeps a window, and snapshots, of the sizes below; a shorter one less. */
const WHOLE_WRITES = 500_000;

/** What is kept, and how often everything is stopped and started. */
function scaleOf(writes: number) {
  const share = Math.min(1, writes / WHOLE_WRITES);
  const of = (whole: number): number => Math.ceil(whole * share);
  const windowWrites = of(12_000);
  const policy = {
    journalWindowSeconds: windowWrites * SECONDS_PER_WRITE,
    syncEverySeconds: 1,
    snapshotEverySeconds: of(1800),
    keepLast: of(12),
    keepHourly: of(72),
    keepDaily: of(30),
    keepWeekly: of(4),
    keepMonthly: of(2),
    keepYearly: 0,
    keepMarks: ['application'],
  };
  return { windowWrites, restartRounds: of(80), policy };
}

type Changes = Requests['mapping-index.changes']['answer'];

/** Gives a write the number that its bytes follow from. */
type Numbering = (start: number, length: number, zero: boolean) => number;

interface OpenMirror {
  seq: number;
  versions: Versions;
  opened: OpenedExport;
}

interface Clone {
  name: string;
  versions: Versions;
}

export interface SoakOptions {
  writes: number;
  seed: number;
  /** Folder in which it works. */
  parent: string;
  say: (line: string) => void;
}

export class Soak {
  readonly tally = new Tally();
  readonly #options: SoakOptions;
  readonly #guest: SeededRandom;
  readonly #random: SeededRandom;
  readonly #twin: Twin;
  readonly #scale: ReturnType<typeof scaleOf>;
  readonly #directory: string;
  readonly #mirrors: OpenMirror[] = [];
  readonly #clones: Clone[] = [];
  readonly #marks: { name: string; seq: number; kept: boolean }[] = [];
  #services!: Services;
  #volumeId = '';
  #clockNs = 1_700_000_000_000_000_000n;
  #cloneVersion = CLONE_VERSIONS;
  #names = 0;
  #rounds = 0;

  constructor(options: SoakOptions) {
    this.#options = options;
    this.#guest = new SeededRandom(options.seed);
    this.#random = new SeededRandom(options.seed + 1);
    this.#directory = mkdtempSync(`${options.parent}/mim-soak-`);
    this.#scale = scaleOf(options.writes);
    this.#twin = new Twin(options.writes + ROUND_WRITES_MAX);
  }

  /** Rejects at the first difference, naming the seed. */
  async run(): Promise<void> {
    const { writes, seed, say } = this.#options;
    let saidMs = performance.now();
    try {
      await this.#start();
      while (this.#twin.seq < writes) {
        await this.#round();
        if (performance.now() - saidMs < SAY_MS) continue;
        saidMs = performance.now();
        say(`${this.#twin.seq} writes, ${this.tally.line()}`);
      }
      await this.#checkEverything();
      await this.#verify();
      await this.tally.timeline(this.#services.catalog, this.#volumeId);
      await this.#stop();
    } catch (error) {
      void this.#services.bus.close();
      await this.#services.catalog.close();
      throw new Error(`seed ${seed} fails after write ${this.#twin.seq}`, { cause: error });
    } finally {
      rmSync(this.#directory, { recursive: true, force: true });
    }
  }

  async #start(): Promise<void> {
    this.#services = await openServices({
      files: nodeFiles(),
      poolDirectory: this.#poolDirectory,
      openCatalog: () => openEmbeddedCatalog(`${this.#directory}/catalog.db`),
      clock: { nowNs: () => (this.#clockNs += 1000n) },
      log: (message) => this.tally.logged(message),
      reached: () => {},
      segmentBytes: SEGMENT_BYTES,
      journalBytesMax: JOURNAL_BYTES_MAX,
      requestBytesMax: WRITE_SECTORS_MAX * SECTOR,
      // Less than the index has: pages come and go.
      indexCacheBytes: 256 << 10,
      headMapBytesMax: 64 << 10,
    });
    await startServices(this.#services);
    if (this.#volumeId !== '') return;
    const volume = { name: 'db', sizeBytes: SIZE, policy: parsePolicy(this.#scale.policy) };
    this.#volumeId = (await ask(this.#services.bus, 'ingest.create-volume', volume)).volumeId;
  }

  async #stop(): Promise<void> {
    for (const { opened } of this.#mirrors.splice(0)) await opened.release();
    await stopServices(this.#services);
  }

  get #poolDirectory(): string {
    return `${this.#directory}/pool`;
  }

  /** Writes with other things beside them; then what can only be checked while nobody writes. */
  async #round(): Promise<void> {
    const random = this.#random;
    const beside: [number, () => Promise<void>][] = [
      [0.7, () => this.#sync()],
      [0.4, () => this.#readMirrors()],
      [0.2, () => this.#openMirror()],
      [0.4, () => this.#checkSomePoint()],
      [0.2, () => this.#changedSince()],
      [0.05, () => this.#changes()],
      [0.04, () => this.#retention()],
      [0.03, () => this.#dropSome()],
      [0.02, () => this.#createClone()],
      [0.1, () => this.#writeClone()],
      [0.03, () => this.#mark()],
    ];
    const chosen = beside.filter(([share]) => random.chance(share)).map(([, act]) => act());
    await Promise.all([this.#write(1 + this.#guest.below(ROUND_WRITES_MAX)), ...chosen]);
    const { bus, catalog } = this.#services;
    await this.tally.look(await ask(bus, 'mapping-index.describe', { volumeId: this.#volumeId }), catalog);
    if (random.chance(0.1)) await this.#history();
    if (random.chance(0.02)) await this.#checkLive();
    if (random.chance(0.02)) await this.#checkMarks();
    if (random.chance(0.02)) await this.#checkRefused();
    if (random.chance(0.01)) await this.#deleteClone();
    // Nobody lets go of a disk that is being read.
    if (random.chance(0.05)) await this.#closeMirror();
    this.#rounds += 1;
    if (this.#rounds % this.#scale.restartRounds === 0) await this.#restart();
  }

  async #restart(): Promise<void> {
    await this.#stop();
    await this.#start();
    this.tally.add('restarts');
    await this.#checkSomePoint();
    for (const clone of this.#clones) await this.#checkClone(clone);
  }

  // ── guests ─────────────────────────────────────────────────────────────────────────────────────────────

  async #write(count: number): Promise<void> {
    const opened = await this.#services.ingest.open('db');
    await this.#submit(opened.device, count, this.#guest, (start, length, zero) => {
      this.#clockNs += BigInt(SECONDS_PER_WRITE) * 1_000_000_000n;
      return this.#twin.write(start, length, zero);
    });
    this.tally.add('writes', count);
    await opened.release();
  }

  async #submit(device: BlockDevice, count: number, random: SeededRandom, number: Numbering): Promise<void> {
    for (let left = count; left > 0; ) {
      const burst = Math.min(left, 1 + random.below(DEPTH));
      const answers = Array.from({ length: burst }, () => this.#submitOne(device, random, number));
      device.kick();
      await Promise.all(answers);
      left -= burst;
    }
  }

  #submitOne(device: BlockDevice, random: SeededRandom, number: Numbering): Promise<void> {
    // Mostly short writes, a third of them on a hot eighth of the disk.
    const length = 1 + random.below(random.chance(0.1) ? WRITE_SECTORS_MAX : 7);
    const start = random.below((random.chance(0.3) ? SECTORS / 8 : SECTORS) - length + 1);
    const zero = random.chance(0.06);
    const kind = zero ? random.pick(['zeroes', 'trim'] as const) : 'write';
    const fua = random.chance(0.002);
    const version = number(start, length, zero);
    return new Promise((resolve, reject) => {
      device.submit({
        kind,
        startBytes: start * SECTOR,
        lengthBytes: length * SECTOR,
        fua,
        payload: zero ? [] : [bytesOfWrite(version, start, length)],
        payloadCount: zero ? 0 : 1,
        complete: (errno) =>
          errno === 0 ? resolve() : reject(new Error(`a write was refused with ${errno}`)),
      });
    });
  }

  async #writeClone(): Promise<void> {
    const clone = this.#someOf(this.#clones);
    if (clone === undefined) return;
    const opened = await this.#services.mapping.open(clone.name);
    await this.#submit(opened.device, 1 + this.#random.below(200), this.#random, (start, length, zero) => {
      this.#cloneVersion += 1;
      clone.versions.fill(zero ? 0 : this.#cloneVersion, start, start + length);
      return this.#cloneVersion;
    });
    await this.#read(opened.device, clone.versions, `clone ${clone.name}`);
    await opened.release();
  }

  // ── operators ──────────────────────────────────────────────────────────────────────────────────────────

  async #sync(): Promise<void> {
    const { mim, latest } = await this.#retained();
    const oldest = latest - this.#random.below(2 * this.#scale.windowWrites);
    const upToSeq = this.#random.chance(0.02) ? null : Math.max(mim, oldest);
    const closeSnapshot = this.#random.chance(0.1);
    await ask(this.#services.bus, 'synchronizer.sync', { volumeId: this.#volumeId, upToSeq, closeSnapshot });
  }

  async #retention(): Promise<void> {
    await this.#unlessPinned(
      ask(this.#services.bus, 'synchronizer.retention', { volumeId: this.#volumeId, dryRun: false }),
    );
  }

  async #dropSome(): Promise<void> {
    const { snapshots } = await this.#retained();
    const kept = new Set(this.#marks.filter((mark) => mark.kept).map((mark) => mark.seq));
    const row = this.#someOf(snapshots.filter(({ state, seq }) => state === 'closed' && !kept.has(seq)));
    if (row === undefined) return;
    const { snapshot } = row;
    await this.#unlessPinned(
      ask(this.#services.bus, 'synchronizer.drop-snapshot', { volumeId: this.#volumeId, snapshot }),
    );
  }

  /** A point that was pinned meanwhile is rightly refused, and one that the policy took has gone. */
  async #unlessPinned(dropping: Promise<unknown>): Promise<void> {
    await dropping.catch((error: unknown) => {
      if (!(error instanceof MidmirrorError)) throw error;
      if (error.code !== 'conflict' && error.code !== 'not-found') throw error;
    });
  }

  async #mark(): Promise<void> {
    const kept = this.#random.chance(0.2);
    const name = this.#newName('mark');
    const kind = kept ? 'application' : 'bookmark';
    const { seq } = await ask(this.#services.bus, 'ingest.mark', { volumeId: this.#volumeId, name, kind });
    this.#marks.push({ name, seq, kept });
  }

  async #createClone(): Promise<void> {
    if (this.#clones.length >= CLONES_MAX) return;
    const seq = await this.#somePoint();
    const name = this.#newName('clone');
    const asked = { volumeId: this.#volumeId, at: `seq:${seq}`, name };
    if ((await this.#ifKept(ask(this.#services.bus, 'mapping-index.create-clone', asked))) === null) return;
    this.#clones.push({ name, versions: this.#twin.at(seq) });
  }

  async #deleteClone(): Promise<void> {
    const clone = this.#someOf(this.#clones);
    if (clone === undefined) return;
    await this.#checkClone(clone);
    await ask(this.#services.bus, 'mapping-index.delete-clone', { name: clone.name });
    this.#clones.splice(this.#clones.indexOf(clone), 1);
  }

  // ── readers ────────────────────────────────────────────────────────────────────────────────────────────

  async #openMirror(): Promise<void> {
    if (this.#mirrors.length >= MIRRORS_MAX) return;
    const seq = await this.#somePoint();
    const opened = await this.#openPoint(seq);
    if (opened !== null) this.#mirrors.push({ seq, versions: this.#twin.at(seq), opened });
  }

  async #closeMirror(): Promise<void> {
    const mirror = this.#someOf(this.#mirrors);
    if (mirror === undefined) return;
    this.#mirrors.splice(this.#mirrors.indexOf(mirror), 1);
    await mirror.opened.release();
  }

  /** Piece by piece, while other things happen. */
  async #readMirrors(): Promise<void> {
    for (const mirror of [...this.#mirrors]) {
      for (let i = 0; i < 8 && this.#mirrors.includes(mirror); i += 1) {
        const length = 1 + this.#random.below(256);
        const first = this.#random.below(SECTORS - length + 1);
        const bytes = Buffer.alloc(length * SECTOR);
        const { device } = mirror.opened;
        if (!device.tryRead(first * SECTOR, bytes.length, bytes, 0))
          await device.read(first * SECTOR, bytes.length, bytes, 0);
        assertSectors(bytes, mirror.versions, first, `the mirror of write ${mirror.seq}`);
        this.tally.add('mirror reads');
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    }
  }

  /** What two points are said to have in common is the same. */
  async #changedSince(): Promise<void> {
    const one = this.#someOf(this.#mirrors);
    const other = await this.#somePoint();
    if (one === undefined) return;
    const context = await this.#ifKept(one.opened.contexts!.open(`midmirror:changed-since:seq:${other}`));
    if (context === null) return;
    const versions = this.#twin.at(other);
    for (let at = 0; at < SIZE && this.#mirrors.includes(one); ) {
      for (const { lengthBytes, flags } of await context.blockStatus(at, SIZE - at, 64)) {
        const differs = firstDifference(one.versions, versions, at / SECTOR, (at + lengthBytes) / SECTOR);
        if (flags === 0)
          assert.equal(differs, -1, `a sector that is said to be as at ${other}, at ${one.seq}`);
        at += lengthBytes;
      }
    }
    await context.release();
    this.tally.add('changed-since');
  }

  /** Exactly the sectors that differ between two points. */
  async #changes(): Promise<void> {
    const [from, to] = [await this.#somePoint(), await this.#somePoint()];
    const [one, other] = [this.#twin.at(from), this.#twin.at(to)];
    const told = new Uint8Array(SECTORS);
    const points = { volumeId: this.#volumeId, from: `seq:${from}`, to: `seq:${to}` };
    for (let after: number | null = 0; after !== null; ) {
      const answer: Changes | null = await this.#ifKept(
        ask(this.#services.bus, 'mapping-index.changes', { ...points, limit: 1000, after }),
      );
      if (answer === null) return;
      for (const { offset, length } of answer.extents)
        told.fill(1, offset / SECTOR, (offset + length) / SECTOR);
      after = answer.next;
    }
    const wrong = told.findIndex((differs, i) => (differs === 1) !== (one[i] !== other[i]));
    assert.equal(wrong, -1, `the first sector whose change from ${from} to ${to} is told wrongly`);
    this.tally.add('changes');
  }

  // ── what must hold ─────────────────────────────────────────────────────────────────────────────────────

  async #checkSomePoint(): Promise<void> {
    await this.#checkPoint(await this.#somePoint());
  }

  /** False: it is not kept. */
  async #checkPoint(seq: number): Promise<boolean> {
    const opened = await this.#openPoint(seq);
    if (opened === null) return false;
    await this.#read(opened.device, this.#twin.at(seq), `point ${seq}`);
    await opened.release();
    this.tally.add('points');
    return true;
  }

  async #checkClone(clone: Clone): Promise<void> {
    const opened = await this.#services.mapping.open(clone.name);
    await this.#read(opened.device, clone.versions, `clone ${clone.name}`);
    await opened.release();
  }

  async #checkLive(): Promise<void> {
    const opened = await this.#services.ingest.open('db');
    await this.#read(opened.device, this.#twin.at(this.#twin.seq), 'the live volume');
    await opened.release();
  }

  /** Marks that the policy keeps, and those of the window. */
  async #checkMarks(): Promise<void> {
    for (const { name, seq, kept } of this.#marks.slice(-40)) {
      const { mim } = await this.#retained();
      const opened = await this.#ifKept(this.#services.mapping.open(`db@mark:${name}`));
      if (opened === null) {
        assert.ok(
          !kept && seq < (await this.#retained()).mim,
          `mark ${name} of write ${seq} is kept (MIM: ${mim})`,
        );
        continue;
      }
      await this.#read(opened.device, this.#twin.at(seq), `mark ${name} of write ${seq}`);
      await opened.release();
      this.tally.add('points');
    }
  }

  /** A point between snapshots is refused, never answered with another (I3). */
  async #checkRefused(): Promise<void> {
    const { mim, snapshots } = await this.#retained();
    const seq = this.#random.below(mim + 1);
    if (seq === mim || snapshots.some((row) => row.seq === seq)) return;
    assert.equal(await this.#openPoint(seq), null, `point ${seq} is refused`);
    this.tally.add('refused points');
  }

  async #history(): Promise<void> {
    const volume = {
      random: this.#random,
      bus: this.#services.bus,
      volumeId: this.#volumeId,
      sizeBytes: SIZE,
      writesAfter: (seq: number) => this.#twin.writesAfter(seq),
      same: (one: number, other: number, start: number, end: number) =>
        firstDifference(this.#twin.at(one), this.#twin.at(other), start / SECTOR, end / SECTOR) === -1,
      snapshotSeqs: async () => (await this.#retained()).snapshots.map((row) => row.seq),
    };
    await checkHistory(volume, 8);
    this.tally.add('histories');
  }

  /** At the end: every snapshot, marks, points of the window, the volume, clones. */
  async #checkEverything(): Promise<void> {
    const { mim, latest, snapshots } = await this.#retained();
    assert.equal(latest, this.#twin.seq, 'the volume stands where its history ends');
    for (const { seq } of snapshots)
      if (!(await this.#checkPoint(seq)))
        assert.ok(
          !(await this.#retained()).snapshots.some((row) => row.seq === seq),
          `snapshot ${seq} is kept`,
        );
    for (let i = 0; i < 20; i += 1) await this.#checkPoint(mim + this.#random.below(latest - mim + 1));
    await this.#checkMarks();
    await this.#checkLive();
    for (const clone of this.#clones) await this.#checkClone(clone);
    for (let i = 0; i < 5; i += 1) await this.#history();
    await this.#readMirrors();
  }

  async #verify(): Promise<void> {
    const { catalog } = this.#services;
    const report = await verifyVolume(nodeFiles(), catalog, this.#poolDirectory, this.#volumeId, () => {});
    assert.deepEqual(report.problems, [], 'mim verify finds nothing');
    this.tally.add('objects verified', report.objects);
    this.tally.add('segments verified', report.segments);
  }

  async #read(device: BlockDevice, versions: Versions, what: string): Promise<void> {
    const bytes = Buffer.alloc(SIZE, 0xee);
    await device.read(0, SIZE, bytes, 0);
    assertSectors(bytes, versions, 0, what);
  }

  // ── points ─────────────────────────────────────────────────────────────────────────────────────────────

  async #retained() {
    const { catalog, bus } = this.#services;
    const { mim_seq: mim } = await volumeById(catalog.db, this.#volumeId);
    const snapshots = await snapshotsOf(catalog.db, this.#volumeId);
    const { seq: latest } = await ask(bus, 'ingest.status', { volumeId: this.#volumeId });
    return { mim, latest, snapshots };
  }

  /** Kept at the moment: a snapshot or a write of the window. */
  async #somePoint(): Promise<number> {
    const { mim, latest, snapshots } = await this.#retained();
    const older = this.#someOf(snapshots.filter((row) => row.seq < mim));
    if (older !== undefined && this.#random.chance(0.5)) return older.seq;
    return mim + this.#random.below(latest - mim + 1);
  }

  #openPoint(seq: number): Promise<OpenedExport | null> {
    return this.#ifKept(this.#services.mapping.open(`db@seq:${seq}`));
  }

  /** Null: the point is not kept, or no longer. */
  async #ifKept<T>(opening: Promise<T>): Promise<T | null> {
    try {
      return await opening;
    } catch (error) {
      if (error instanceof MidmirrorError && error.code === 'point-unavailable') return null;
      throw error;
    }
  }

  #someOf<T>(items: readonly T[]): T | undefined {
    return items.length === 0 ? undefined : this.#random.pick(items);
  }

  #newName(prefix: string): string {
    this.#names += 1;
    return `${prefix}${this.#names}`;
  }
}

/** -1: the same from `first` to `end`. */
function firstDifference(one: Versions, other: Versions, first: number, end: number): number {
  for (let i = first; i < end; i += 1) if (one[i] !== other[i]) return i;
  return -1;
}
