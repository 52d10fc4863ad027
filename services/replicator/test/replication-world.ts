// A naive twin of everything round the core: a primary and a map that forget with the power what was not synced, an
// appliance that journals what reaches it and forgets likewise, a network that can be cut at any point. Whatever the
// core asks for lies in a list until a test performs it, in any order that could come. The checks stand here too.
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { Errno, type WriteCommand, type WriteKind } from '@midmirror/block-device';
import { decodePages, encodePage } from '../core/intent-format.ts';
import { inOrder, type Mode } from '../core/modes.ts';
import type { Gap, MarkPoint, ReplicationPorts } from '../core/ports.ts';
import { RegionMap } from '../core/region-map.ts';
import { Replication } from '../core/replication.ts';
import { EntryKind, hasData } from '../core/send-queue.ts';
import { limits } from '../limits.ts';
import { apply, concat, type Content, GuestWrite } from './guest-write.ts';

export const SECTOR = 512;
export const SECTORS = 61;
export const VOLUME_BYTES = SECTOR * SECTORS;
const QUEUE_BYTES = 16 * SECTOR;

export const smallLimits = {
  ...{ intentGroupBytes: 8 * SECTOR, queueEntriesMax: 24, sentBytesMax: 8 * SECTOR, sentEntriesMax: 6 },
  ...{ windowBytesMax: 8 * SECTOR, windowsMax: 3, blockBytes: 2 * SECTOR, fineBlockBytes: SECTOR },
  ...{ fineWindowBytesMax: 4 * SECTOR, pieceBytesMax: 2 * SECTOR, clearEveryMs: 200, flushEveryMs: 100 },
  marksWaitingMax: 3,
};

export interface Setup {
  regionSectors: number;
  sync: boolean;
  onLoss: 'continue' | 'block';
  /** Writes are done at once, or all later. */
  quick: boolean;
  /** What takes longer than all else. */
  slow: 'write' | 'sync' | 'store' | 'read' | 'digests' | 'open' | 'close' | 'none';
}

interface Sent {
  command: WriteCommand | null;
  start: number;
  length: number;
  bytes: Uint8Array;
  flushed: ((errno: number) => void) | null;
  state: 'sent' | 'processed' | 'refused';
  /** Of a flush: what had been answered when it was sent. */
  covers: number;
  journalEnd: number;
}

interface Pending {
  kind: string;
  act: (choice: number) => void;
}

export class World {
  readonly setup: Setup;
  readonly regionBytes: number;
  nowMs = 0;
  // The host.
  primary = new Uint8Array(VOLUME_BYTES);
  stablePrimary = new Uint8Array(VOLUME_BYTES);
  #unsynced: Content[] = [];
  #file: Uint8Array = new Uint8Array(0);
  #stableFile: Uint8Array = new Uint8Array(0);
  #decodedFile: Uint8Array | null = null;
  #decoded: Uint8Array = new Uint8Array(0);
  #synced = false;
  // What the primary was, write by write, since the core was born.
  #base = new Uint8Array(VOLUME_BYTES);
  #history: Content[] = [];
  /** Writes of the history that the journal may stand at. */
  #places = new Set<number>();
  // The appliance.
  live = new Uint8Array(VOLUME_BYTES);
  stable = new Uint8Array(VOLUME_BYTES);
  #journalEnd = 0;
  #stableEnd = 0;
  #gap: Gap | null = null;
  #gaps = 0;
  #connected = false;
  reachable = true;
  #sent: Sent[] = [];
  #pending: Pending[] = [];
  #generation = 0;
  #session = 0;
  /** When each hold ends by itself. */
  readonly #held = new Set<{ untilMs: number }>();
  #refusing = false;
  /** Written on the primary, and not said so yet. */
  readonly #underWay = new Set<Content>();
  core!: Replication;
  readonly modes: Mode[] = [];
  /** What has happened that need not. */
  readonly seen: string[] = [];
  /** Guests' writes that were not answered, over all lives. */
  unanswered = 0;

  constructor(setup: Setup, primary: Uint8Array, live: Uint8Array) {
    this.setup = setup;
    this.regionBytes = setup.regionSectors * SECTOR;
    this.primary.set(primary);
    this.stablePrimary.set(primary);
    this.live.set(live);
    this.stable.set(live);
    this.#remember();
    this.#boot(null);
  }

  get pendingCount(): number {
    return this.#pending.length + this.#sent.length;
  }

  // ── lives ──────────────────────────────────────────────────────────────────────────────────────────────

  #boot(bits: Uint8Array | null): void {
    this.#generation += 1;
    this.#pending = [];
    this.#hangUp();
    this.#base = this.primary.slice();
    this.#history = [];
    this.#held.clear();
    this.#underWay.clear();
    this.unanswered = 0;
    const regions = new RegionMap(VOLUME_BYTES, this.regionBytes, bits, smallLimits);
    this.#file = encodePage(regions.bits, 0);
    this.#stableFile = this.#file;
    this.#look();
    this.core = new Replication(
      {
        ...{ regions, queueBytes: QUEUE_BYTES, sync: this.setup.sync, onLoss: this.setup.onLoss },
        ...{ synced: this.#synced, throttleBytesPerSecond: null, limits: smallLimits },
      },
      this.#ports(this.#generation),
    );
    this.core.begin();
  }

  /** The process dies, or the host with its power; it starts again. */
  kill(power: boolean, choice: number): void {
    if (power) {
      this.primary.set(this.stablePrimary);
      // Of what was not synced any part may be there.
      for (const [i, content] of this.#unsynced.entries())
        if (((choice >> (i % 16)) & 1) === 1) apply(this.primary, content);
      this.stablePrimary.set(this.primary);
      this.#unsynced = [];
      this.#file = (choice & 1) === 1 ? this.#file : this.#stableFile;
      // A page under our hands may be torn.
      if ((choice & 3) === 3 && this.#file !== this.#stableFile) {
        this.#file = this.#file.slice();
        this.#file.fill(0x5a, 600, 700);
        this.seen.push('torn');
      }
    }
    const regionCount = Math.ceil(VOLUME_BYTES / this.regionBytes);
    const { bits } = decodePages(concat(new Uint8Array(4096), this.#file), regionCount);
    this.#boot(bits);
  }

  // ── the core's ports ───────────────────────────────────────────────────────────────────────────────────

  #ports(generation: number): ReplicationPorts {
    const later = (kind: string, act: (choice: number) => void): void => {
      if (generation === this.#generation) this.#pending.push({ kind, act });
    };
    return {
      log: () => {},
      nowMs: () => this.nowMs,
      random: () => 0.5,
      wake: () => later('wake', () => this.core.work()),
      modeChanged: (mode) => this.modes.push(mode),
      digestOf: (bytes) => hash('sha256', bytes, 'buffer'),
      writeNow: (command) => {
        this.#checkBegins();
        if (!this.setup.quick) return null;
        this.#write(command as GuestWrite);
        return Errno.ok;
      },
      writeLater: (command, done) => {
        this.#checkIntent(command);
        later('write', (choice) => {
          const write = command as GuestWrite;
          const well = choice % 23 !== 0;
          // When it fails, any part of it may be there.
          const content = well ? write.content : { ...write.content, length: SECTOR };
          this.#put(content);
          this.#underWay.add(content);
          later('write', () => {
            this.#underWay.delete(content);
            this.#history.push(content);
            write.place = this.#history.length;
            done(well ? Errno.ok : Errno.EIO);
          });
        });
      },
      syncPrimary: (done) => {
        const covered = this.#unsynced.length;
        later('sync', () => {
          for (const content of this.#unsynced.splice(0, covered)) apply(this.stablePrimary, content);
          done(Errno.ok);
        });
      },
      readPrimary: (start, length, done) =>
        later('read', (choice) => {
          const bytes = choice % 31 === 0 ? null : this.primary.slice(start, start + length);
          later('read', () => done(bytes));
        }),
      storeIntent: (pages, done) =>
        later('store', (choice) => {
          if (choice % 29 === 0) return done(false);
          assert.deepEqual(pages.length > 1, false);
          const page = encodePage(this.core.regions.bits, 0);
          this.#file = page;
          later('stored', () => {
            this.#stableFile = page;
            done(true);
          });
        }),
      storeSynced: () => {
        this.#synced = true;
      },
      connect: () =>
        later('connect', () => {
          if (!this.reachable) return this.core.lost('unreachable');
          this.#connected = true;
          this.#refusing = false;
          this.core.connected({ gap: this.#gap });
        }),
      disconnect: () => this.#hangUp(),
      send: (command) => {
        const { kind, startBytes, lengthBytes, payload, payloadCount } = command;
        const bytes = concat(...payload.slice(0, payloadCount));
        assert.equal(bytes.length, kind === 'write' ? lengthBytes : 0);
        this.#sent.push({
          ...{ command, start: startBytes, length: lengthBytes, flushed: null },
          ...{ bytes: kind === 'write' ? bytes : new Uint8Array(lengthBytes) },
          ...{ state: 'sent', covers: 0, journalEnd: 0 },
        });
      },
      kick: () => {},
      flushAppliance: (done) => {
        const covers = this.#answeredEnd;
        this.#sent.push({
          ...{ command: null, start: 0, length: 0, bytes: new Uint8Array(0) },
          ...{ flushed: done, state: 'sent', covers, journalEnd: 0 },
        });
      },
      askDigests: (start, length, blockBytes, done) => {
        const session = this.#session;
        later('digests', (choice) => {
          if (!this.reachable || session !== this.#session || choice % 37 === 0) return done(null);
          const digests: Uint8Array[] = [];
          for (let at = start; at < start + length; at += blockBytes)
            digests.push(
              hash('sha256', this.live.slice(at, Math.min(at + blockBytes, start + length)), 'buffer'),
            );
          done(concat(...digests));
        });
      },
      openGap: (_behindMs, done) =>
        later('open', (choice) => {
          if (!this.reachable) return done(null);
          if (this.#gap === null) {
            this.#gaps += 1;
            this.#gap = { number: this.#gaps, fromTime: '' };
            this.#persist();
          }
          // The answer may get lost.
          done(choice % 11 === 0 ? null : this.#gap);
        }),
      closeGap: (done) =>
        later('close', (choice) => {
          if (!this.reachable) return done(false);
          this.#gap = null;
          this.#persist();
          this.#look();
          assert.ok(this.#places.size > 0, 'a gap is closed where the appliance is as the primary was');
          done(choice % 11 !== 0);
        }),
      mark: (_name, _kind, done) =>
        later('mark', () => {
          if (!this.reachable) return done(new Error('unreachable'));
          this.#persist();
          done({ seq: this.#journalEnd, timeNs: 0n });
        }),
    };
  }

  #write(write: GuestWrite): void {
    this.#checkIntent(write);
    this.#put(write.content);
    this.#history.push(write.content);
    write.place = this.#history.length;
  }

  #put(content: Content): void {
    apply(this.primary, content);
    this.#unsynced.push(content);
  }

  // ── the appliance ──────────────────────────────────────────────────────────────────────────────────────

  #hangUp(): void {
    this.#connected = false;
    this.#session += 1;
    const sent = this.#sent;
    this.#sent = [];
    for (const { command, flushed } of sent) {
      command?.complete(Errno.ESHUTDOWN);
      flushed?.(Errno.ESHUTDOWN);
    }
  }

  get #answeredEnd(): number {
    const open = this.#sent.find(({ command, state }) => command !== null && state === 'processed');
    return open === undefined ? this.#journalEnd : open.journalEnd - 1;
  }

  /** The next of what was sent reaches the appliance. */
  process(): void {
    const next = this.#sent.find(({ state }) => state === 'sent');
    if (next === undefined) return;
    next.state = this.#refusing ? 'refused' : 'processed';
    if (next.command === null || this.#refusing) return;
    this.live.set(next.bytes, next.start);
    this.#journalEnd += 1;
    next.journalEnd = this.#journalEnd;
    this.#remember();
    if (this.#gap === null) this.#follow(next);
  }

  /** It takes no more on this connection. */
  refuse(): void {
    this.#refusing = this.#connected;
  }

  /** One of what it has is answered. */
  answer(choice: number): void {
    const processed = this.#sent.filter(({ state }) => state !== 'sent');
    const chosen = processed[choice % Math.max(1, processed.length)];
    if (chosen === undefined) return;
    this.#sent.splice(this.#sent.indexOf(chosen), 1);
    if (chosen.state === 'refused') this.seen.push('refused');
    if (chosen.state === 'refused')
      return chosen.command === null ? chosen.flushed!(Errno.EIO) : chosen.command.complete(Errno.EIO);
    if (chosen.command !== null) {
      if (chosen.command.fua && chosen.journalEnd > this.#stableEnd) this.#persistTo(chosen.journalEnd);
      return chosen.command.complete(Errno.ok);
    }
    if (chosen.covers > this.#stableEnd) this.#persistTo(chosen.covers);
    chosen.flushed!(Errno.ok);
  }

  #persist(): void {
    this.#persistTo(this.#journalEnd);
  }

  #persistTo(end: number): void {
    const found = this.#images.find((each) => each.end === end);
    assert.ok(found !== undefined);
    this.#stableEnd = end;
    this.stable.set(found.image);
  }

  /** The newest of what the appliance was, journaled write by write. */
  #images: { end: number; image: Uint8Array }[] = [];

  #remember(): void {
    this.#images.push({ end: this.#journalEnd, image: this.live.slice() });
    if (this.#images.length > 40) this.#images.shift();
  }

  /** The link is lost: some of what was sent arrives yet. `power`: the appliance forgets what it had not flushed. */
  lose(power: boolean, arriving: number): void {
    for (let i = 0; i < arriving && this.#connected; i += 1) this.process();
    const was = this.#connected;
    const sent = this.#sent;
    this.#sent = [];
    this.#connected = false;
    this.#session += 1;
    if (power) {
      this.live.set(this.stable);
      this.#journalEnd = this.#stableEnd;
      this.#images = [];
      this.#remember();
      // What has not been journaled at the appliance can't be followed on from where it was.
      if (this.#gap === null) this.#look();
    }
    if (was) this.core.lost('cut');
    for (const { command, flushed } of sent) {
      command?.complete(Errno.ESHUTDOWN);
      flushed?.(Errno.ESHUTDOWN);
    }
  }

  // ── checks ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Where in the primary's history the appliance stands now. */
  #look(): void {
    this.#places = new Set();
    const image = this.#base.slice();
    for (let place = 0; place <= this.#history.length; place += 1) {
      if (place > 0) apply(image, this.#history[place - 1]!);
      if (Buffer.compare(image, this.live) === 0) this.#places.add(place);
    }
  }

  /** Outside a gap each journaled write is the next one of the primary. */
  #follow({ start, length }: { start: number; length: number }): void {
    const places = new Set<number>();
    for (const place of this.#places) {
      const next = this.#history[place];
      if (next !== undefined && next.start === start && next.length === length) places.add(place + 1);
    }
    assert.ok(places.size > 0, `write ${start}+${length} at the appliance is the next one of the primary`);
    this.#places = places;
  }

  #checkBegins(): void {
    const { sync, onLoss } = this.setup;
    assert.ok(!this.isHeld, 'no write begins while they are held');
    const blocked = sync && onLoss === 'block' && this.#synced && !inOrder(this.core.mode);
    assert.ok(!blocked, 'no write begins while the appliance is away');
  }

  #checkIntent({ startBytes, lengthBytes }: { startBytes: number; lengthBytes: number }): void {
    const last = Math.floor((startBytes + lengthBytes - 1) / this.regionBytes);
    for (let region = Math.floor(startBytes / this.regionBytes); region <= last; region += 1)
      assert.ok(this.#isDurable(region), `the bit of region ${region} is durable before it is written`);
  }

  #isDurable(region: number): boolean {
    if (this.#decodedFile !== this.#stableFile) {
      this.#decodedFile = this.#stableFile;
      const regionCount = Math.ceil(VOLUME_BYTES / this.regionBytes);
      this.#decoded = decodePages(concat(new Uint8Array(4096), this.#stableFile), regionCount).bits;
    }
    return (this.#decoded[region >> 3]! & (1 << (region & 7))) !== 0;
  }

  /** A region that differs, or would after anybody's loss of power, has its bit on stable storage. */
  check(): void {
    for (let at = 0, region = 0; at < VOLUME_BYTES; at += this.regionBytes, region += 1) {
      const part = (bytes: Uint8Array): Uint8Array => bytes.subarray(at, at + this.regionBytes);
      const same = [this.stablePrimary, this.live, this.stable].every(
        (other) => Buffer.compare(part(this.primary), part(other)) === 0,
      );
      if (!same) assert.ok(this.#isDurable(region), `region ${region} differs and its bit is durable`);
    }
    assert.ok(this.core.queue.usedBytes <= QUEUE_BYTES);
    this.#checkClean();
  }

  /** What is not behind is equal once the queue is through. */
  #checkClean(): void {
    const { queue, regions } = this.core;
    const coming = this.live.slice();
    const pieces: Uint8Array[] = [];
    for (let pos = queue.ackedPos + 1; pos <= queue.lastPos; pos += 1) {
      const kind = queue.kindAt(pos);
      const start = queue.startAt(pos);
      if (kind === EntryKind.zeroes) coming.fill(0, start, start + queue.lengthAt(pos));
      if (!hasData(kind)) continue;
      let at = start;
      const count = queue.payloadAt(pos, pieces);
      for (const piece of pieces.slice(0, count)) {
        coming.set(piece, at);
        at += piece.length;
      }
    }
    const hidden = [...this.#underWay];
    for (let region = 0; region < regions.count; region += 1) {
      const [from, to] = [regions.startOf(region), regions.endOf(region)];
      const busy = hidden.some(({ start, length }) => start < to && start + length > from);
      if (regions.isBehind(region) || busy) continue;
      const same = Buffer.compare(coming.subarray(from, to), this.primary.subarray(from, to)) === 0;
      assert.ok(same, `region ${region} is not behind, and will be equal`);
    }
  }

  // ── what tests do ──────────────────────────────────────────────────────────────────────────────────────

  perform(choice: number): void {
    const index = choice % Math.max(1, this.#pending.length);
    if (this.#pending[index]?.kind === this.setup.slow && (choice >> 8) % 8 !== 0) return;
    const [pending] = this.#pending.splice(index, 1);
    pending?.act(choice >> 4);
  }

  submit(kind: WriteKind, start: number, sectors: number, fill: number, fua: boolean): void {
    const length = Math.min(sectors, SECTORS - start) * SECTOR;
    const content = { start: start * SECTOR, length, fill };
    this.unanswered += 1;
    const generation = this.#generation;
    const write = new GuestWrite(kind, content, fua, (fill % 3) * 100, (errno, { place }) => {
      if (generation !== this.#generation) return;
      this.unanswered -= 1;
      if (errno !== Errno.ok || kind === 'trim') return;
      assert.ok(!fua || !this.#unsynced.includes(write.content), 'a FUA write is on stable storage');
      const { sync, onLoss } = this.setup;
      if (sync && onLoss === 'block' && this.#synced && this.#gap === null)
        assert.ok(Math.max(...this.#places) >= place, `write ${place} is answered and on the appliance`);
    });
    this.core.submit(write);
  }

  kick(): void {
    this.core.kick();
  }

  /** What was written before is on the primary's stable storage, and with `block` on the appliance's. */
  flush(): void {
    const before = this.#unsynced.slice();
    const generation = this.#generation;
    this.core.flush((errno) => {
      if (generation !== this.#generation) return;
      assert.equal(errno, Errno.ok);
      for (const content of before)
        assert.ok(!this.#unsynced.includes(content), 'a flush covers what was written before');
    });
  }

  get isHeld(): boolean {
    return [...this.#held].some(({ untilMs }) => this.nowMs < untilMs);
  }

  hold(): void {
    const generation = this.#generation;
    const held = { untilMs: this.nowMs + limits.holdMsMax };
    this.core.hold((release) => {
      if (generation !== this.#generation) return;
      if (this.nowMs < held.untilMs)
        assert.ok(
          !this.#pending.some(({ kind }) => kind === 'write'),
          'nothing is under way while writes are held',
        );
      this.#held.add(held);
      this.seen.push('hold');
      const act = (): void => {
        this.#held.delete(held);
        if (this.nowMs < held.untilMs) assert.ok(release());
      };
      this.#pending.push({ kind: 'release', act });
    });
  }

  /** It stands behind all that has been written before, and before what is written later. */
  mark(): void {
    const place = this.#history.length;
    const generation = this.#generation;
    this.core.mark('m', 'bookmark', (point: MarkPoint | Error) => {
      if (generation !== this.#generation || point instanceof Error) return;
      this.seen.push('mark');
      // Nothing is sent before its answer: it stands where the appliance stands now.
      if (this.#gap === null)
        assert.ok(this.#places.has(place), `a mark stands behind write ${place}, not ${[...this.#places]}`);
    });
  }

  tick(ms: number): void {
    this.nowMs += ms;
    this.core.tick();
  }

  /** Everything arrives and is answered, until nothing is left to do. */
  settle(): void {
    this.reachable = true;
    this.kick();
    for (let round = 0; round < 3000; round += 1) {
      // 1: an error comes with some multiples.
      while (this.#pending.length > 0) this.#pending.shift()!.act(1);
      this.process();
      this.answer(0);
      if (round % 20 === 19) this.tick(300);
      this.check();
      if (this.core.mode === 'replicating' && this.core.queue.empty && this.pendingCount === 0 && round > 200)
        break;
    }
    assert.equal(this.core.mode, 'replicating', 'it replicates again once all is well');
    assert.equal(this.#gap, null);
    assert.equal(this.unanswered, 0, 'every write is answered');
    assert.equal(Buffer.compare(this.primary, this.live), 0, 'primary and appliance are equal');
  }
}
