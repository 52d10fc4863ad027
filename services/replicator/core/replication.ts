// The replicator without its edges: guests' writes come in, go to the primary, and from there in the order of their
// completion into the queue to the appliance; what the appliance may lack is behind, known to a crash before the
// primary is written, and copied. What leads from mode to mode stands in modes.ts.
import { MidmirrorError } from '@midmirror/basis';
import { Errno, type WriteCommand } from '@midmirror/block-device';
import { type Limits, limits as usualLimits } from '../limits.ts';
import { Answer, SyncTurns } from './answers.ts';
import { Copier } from './copier.ts';
import { CopyPace } from './copy-pace.ts';
import { GuestWrites } from './guest-writes.ts';
import { Holds, type Release } from './holds.ts';
import { Marks } from './marks.ts';
import { feeds, inOrder, type Mode, type ModeInput, nextMode } from './modes.ts';
import type { Gap, MarkPoint, Met, ReplicationPorts } from './ports.ts';
import type { RegionMap } from './region-map.ts';
import { type EntryOwner, SendQueue } from './send-queue.ts';
import { Sender } from './sender.ts';

export interface ReplicationOptions {
  regions: RegionMap;
  queueBytes: number;
  /** Guests' answers wait for the appliance too; while it is away they wait, or go on without. */
  sync: boolean;
  onLoss: 'continue' | 'block';
  /** Primary and appliance have been equal before. */
  synced: boolean;
  /** Of copying. */
  throttleBytesPerSecond: number | null;
  limits?: Partial<Limits>;
}

/** Since nobody knows when: a gap then begins with the last write that the appliance has. */
const UNKNOWN_MS = Number.NEGATIVE_INFINITY;
const FOR_AGES_MS = 10 * 365 * 86_400_000;

export class Replication {
  readonly regions: RegionMap;
  readonly queue: SendQueue;
  readonly pace: CopyPace;
  readonly #options: ReplicationOptions;
  readonly #limits: Limits;
  readonly #ports: ReplicationPorts;
  readonly #copier: Copier;
  readonly #sender: Sender;
  readonly #writes = new GuestWrites();
  readonly #holds: Holds;
  readonly #marks: Marks;
  readonly #syncs: SyncTurns;
  #mode: Mode = 'connecting';
  #synced: boolean;
  #arrived: WriteCommand[] = [];
  #woken = false;
  #storing = false;
  #storeAgainMs = 0;
  #storeFailed = false;
  /** Everything up to here is on the primary's stable storage. */
  #primarySyncedPos = 0;
  #clearMs = 0;
  #clearPos = 0;
  /** Since when the appliance lacks writes that the primary has. Null: it lacks none, or they are on their way. */
  #sinceMs: number | null;
  #gap: Gap | null = null;
  /** The appliance is asked to open or close a gap, and has not answered. */
  #asking = false;
  #askAgainMs = 0;
  #connectDue = false;
  #failures = 0;
  #connectedMs = 0;
  /** What is to be done at the appliance before the gap is closed. */
  #closePos = 0;
  /** Of `--on-loss block`: what was not answered when the appliance was lost. */
  #blocked: EntryOwner[] = [];
  #flushes: { pos: number; answer: Answer }[] = [];
  #stopping: (() => void) | null = null;
  #finishing = false;

  constructor(options: ReplicationOptions, ports: ReplicationPorts) {
    this.#options = options;
    this.#limits = { ...usualLimits, ...options.limits };
    this.#ports = ports;
    this.#synced = options.synced;
    this.regions = options.regions;
    this.queue = new SendQueue(options.queueBytes, this.#limits.queueEntriesMax);
    this.pace = new CopyPace(options.throttleBytesPerSecond);
    this.#sinceMs = this.regions.behindCount > 0 ? UNKNOWN_MS : null;
    this.#sender = new Sender(
      this.queue,
      ports,
      {
        progressed: () => this.#wake(),
        refused: (errno, what) => this.#refused(errno, what),
      },
      this.#limits,
    );
    this.#copier = new Copier(
      this.regions,
      this.queue,
      ports,
      {
        isBusy: (start, length) => this.#writes.isBusy(start, length),
        letGo: () => this.#wake(),
        queued: () => this.#wake(),
        caughtUp: () => this.#input({ kind: 'caught-up' }),
      },
      this.pace,
      this.#limits,
      options.sync ? this.#limits.copiedBytesMaxSync : this.#limits.copiedBytesMax,
    );
    this.#holds = new Holds(() => this.#wake());
    this.#marks = new Marks(this.queue, ports, () => this.#wake());
    this.#syncs = new SyncTurns((done) => this.#syncPrimary(done));
    this.#clearMs = ports.nowMs() + this.#limits.clearEveryMs;
  }

  get mode(): Mode {
    return this.#mode;
  }
  get gap(): Gap | null {
    return this.#gap;
  }
  get synced(): boolean {
    return this.#synced;
  }
  /** Guests' writes wait because the map of intent can't be stored. */
  get storeFailed(): boolean {
    return this.#storeFailed;
  }

  /** Guests' writes wait until an appliance that is away has caught up. */
  get blocks(): boolean {
    return this.#blocks();
  }

  /** Age of the oldest write that the appliance lacks; infinite: nobody knows. */
  get lagMs(): number {
    const nowMs = this.#ports.nowMs();
    const oldestMs = Math.min(this.#sinceMs ?? nowMs, this.queue.oldestMs ?? nowMs);
    return nowMs - oldestMs;
  }

  begin(): void {
    this.#ports.connect(0);
  }

  // ── guests ─────────────────────────────────────────────────────────────────────────────────────────────

  submit(write: WriteCommand): void {
    // Neither side keeps holes for a guest, and a trim promises nothing.
    if (write.kind === 'trim') return write.complete(Errno.ok);
    if (this.#stopping !== null) return write.complete(Errno.ESHUTDOWN);
    this.#arrived.push(write);
  }

  kick(): void {
    const arrived = this.#arrived;
    if (arrived.length === 0) return;
    this.#arrived = [];
    for (const write of arrived) {
      if (this.#mayBegin(write, this.#writes.waiting)) this.#begin(write);
      else this.#writes.waiting.push(write);
    }
    this.#store();
  }

  flush(done: (errno: number) => void): void {
    const { lastPos } = this.queue;
    const answer = new Answer(1, done);
    this.#sender.wantFlush(lastPos);
    if (this.#options.sync && (feeds(this.#mode) || this.#blocks())) {
      answer.wait();
      this.#flushes.push({ pos: this.#blocks() ? Number.POSITIVE_INFINITY : lastPos, answer });
    }
    this.#syncs.ask((errno) => answer.done(errno));
    this.#wake();
  }

  #mayBegin(write: WriteCommand, waitingBefore: readonly WriteCommand[]): boolean {
    const { startBytes, lengthBytes } = write;
    if (this.#holds.any || this.#blocks()) return false;
    if (this.#writes.isBlocked(write, waitingBefore)) return false;
    if (this.#copier.holds(startBytes, lengthBytes)) return false;
    const first = this.regions.regionOf(startBytes);
    const last = this.regions.lastRegionOf(startBytes, lengthBytes);
    if (!this.regions.isDurable(first, last)) {
      this.regions.want(first, last);
      return false;
    }
    const waitsForRoom = this.#options.sync && feeds(this.#mode);
    return !waitsForRoom || this.queue.hasRoom(dataBytesOf(write), entriesMaxOf(first, last));
  }

  /** Guests wait for an appliance that is away. Not before primary and appliance have been equal once. */
  #blocks(): boolean {
    const { sync, onLoss } = this.#options;
    return sync && onLoss === 'block' && this.#synced && !inOrder(this.#mode);
  }

  #begin(write: WriteCommand): void {
    const errno = this.#ports.writeNow(write);
    if (errno !== null) return this.#written(write, errno);
    this.#writes.began(write);
    const reservedBytes = this.#options.sync ? dataBytesOf(write) : 0;
    const reservedEntries = this.#options.sync ? this.#entriesMax(write) : 0;
    this.queue.reservedBytes += reservedBytes;
    this.queue.reservedEntries += reservedEntries;
    this.#ports.writeLater(write, (late) => {
      this.#writes.ended(write);
      this.queue.reservedBytes -= reservedBytes;
      this.queue.reservedEntries -= reservedEntries;
      this.#written(write, late);
      this.#wake();
    });
  }

  /** The primary has it: the place in the queue is that of this moment. */
  #written(write: WriteCommand, errno: number): void {
    if (errno !== Errno.ok) {
      // Any part of it may have been written.
      this.#miss(write);
      return write.complete(errno);
    }
    const waits = this.#options.sync || write.fua;
    const answer = waits ? new Answer(1, (late) => write.complete(late)) : null;
    this.#feed(write, this.#options.sync ? answer : null);
    if (answer === null) return write.complete(Errno.ok);
    // Begun while it did not block, and the appliance was lost meanwhile.
    if (this.#blocks()) {
      answer.wait();
      this.#blocked.push(answer);
    }
    if (write.fua) {
      answer.wait();
      this.#syncs.ask((late) => answer.done(late));
    }
    answer.done(Errno.ok);
  }

  #feed(write: WriteCommand, owner: Answer | null): void {
    if (!feeds(this.#mode)) return this.#miss(write);
    const { startBytes, lengthBytes } = write;
    const first = this.regions.regionOf(startBytes);
    const last = this.regions.lastRegionOf(startBytes, lengthBytes);
    if (!this.queue.hasRoom(dataBytesOf(write), entriesMaxOf(first, last))) return this.#miss(write);
    if (this.regions.behindCount === 0) this.#queueRun(write, startBytes, startBytes + lengthBytes, owner);
    else this.#feedClean(write, first, last, owner);
    this.#wake();
  }

  /** Those parts of it that lie in clean regions. */
  #feedClean(write: WriteCommand, first: number, last: number, owner: Answer | null): void {
    const end = write.startBytes + write.lengthBytes;
    let runFrom = -1;
    let runTo = -1;
    for (let region = first; region <= last; region += 1) {
      const from = Math.max(write.startBytes, this.regions.startOf(region));
      const to = Math.min(end, this.regions.endOf(region));
      const fedTo = this.regions.isBehind(region) ? Math.min(to, this.#copier.fedEnd(region)) : to;
      if (fedTo > from) {
        if (runFrom === -1) runFrom = from;
        runTo = fedTo;
        if (fedTo === to) continue;
      }
      if (runFrom !== -1) this.#queueRun(write, runFrom, runTo, owner);
      runFrom = -1;
    }
    if (runFrom !== -1) this.#queueRun(write, runFrom, runTo, owner);
  }

  #queueRun(write: WriteCommand, from: number, to: number, owner: Answer | null): void {
    owner?.wait();
    const pos = this.queue.addOf(write, from - write.startBytes, to - from, owner, this.#ports.nowMs());
    const last = this.regions.lastRegionOf(from, to - from);
    for (let region = this.regions.regionOf(from); region <= last; region += 1)
      this.regions.sent(region, pos);
  }

  /** The appliance does not get it: its regions are behind. */
  #miss(write: WriteCommand): void {
    const last = this.regions.lastRegionOf(write.startBytes, write.lengthBytes);
    for (let region = this.regions.regionOf(write.startBytes); region <= last; region += 1) {
      this.#copier.missed(region);
      this.regions.markBehind(region);
    }
    this.#sinceMs ??= this.#ports.nowMs();
    this.#input({ kind: 'overflow' });
  }

  #entriesMax({ startBytes, lengthBytes }: WriteCommand): number {
    return entriesMaxOf(
      this.regions.regionOf(startBytes),
      this.regions.lastRegionOf(startBytes, lengthBytes),
    );
  }

  // ── intent ─────────────────────────────────────────────────────────────────────────────────────────────

  #store(): void {
    if (this.#storing || !this.regions.unstored || this.#ports.nowMs() < this.#storeAgainMs) return;
    this.#storing = true;
    const pages = this.regions.beginStore();
    this.#ports.storeIntent(pages, (stored) => {
      this.#storing = false;
      this.#storeFailed = !stored;
      if (!stored) this.#storeAgainMs = this.#ports.nowMs() + this.#limits.storeAgainMs;
      this.regions.endStore(pages, stored);
      this.#advance();
      this.#store();
      this.#wake();
    });
  }

  #syncPrimary(done: (errno: number) => void): void {
    const pos = this.queue.lastPos;
    this.#ports.syncPrimary((errno) => {
      if (errno === Errno.ok) this.#primarySyncedPos = Math.max(this.#primarySyncedPos, pos);
      done(errno);
    });
  }

  /** Takes back the intent of what both sides have on stable storage and nobody has written since the last time. */
  #clear(nowMs: number): void {
    if (nowMs < this.#clearMs) return;
    this.#clearMs = nowMs + this.#limits.clearEveryMs;
    const pos = Math.min(this.#sender.flushedPos, this.#primarySyncedPos, this.#clearPos);
    this.regions.clear(pos, (start, length) => this.#writes.isBusy(start, length));
    this.#store();
    this.#clearPos = this.queue.lastPos;
    if (this.#clearPos > this.#primarySyncedPos) this.#syncs.ask(() => {});
  }

  // ── the appliance ──────────────────────────────────────────────────────────────────────────────────────

  connected({ gap }: Met): void {
    this.#gap = gap;
    this.#connectedMs = this.#ports.nowMs();
    this.#sender.connected();
    const behind = this.regions.behindCount > 0;
    if (!behind) this.#sinceMs = null;
    this.#input({ kind: 'connected', behind, gapOpen: gap !== null });
    this.#wake();
  }

  /** The connection has ended, or none could be made. */
  lost(reason: string): void {
    if (this.#mode === 'stopped') return;
    const wasConnected = this.#mode !== 'connecting';
    const { flushedPos, unflushedSinceMs } = this.#sender;
    this.#copier.stop();
    this.#sender.lost();
    const owners = this.queue.discard();
    // What it has answered and not flushed it may lose with its power.
    if (this.regions.markBehindAfter(flushedPos))
      this.#sinceMs = Math.min(this.#sinceMs ?? unflushedSinceMs, unflushedSinceMs);
    if (wasConnected) this.#ports.log(`the appliance is lost: ${reason}`);
    this.#failures += 1;
    this.#marks.fail(new MidmirrorError('unavailable', `the appliance was lost meanwhile: ${reason}`));
    this.#input({ kind: 'lost' });
    if (this.#blocks()) {
      for (const owner of owners) this.#blocked.push(owner);
      for (const flush of this.#flushes) flush.pos = Number.POSITIVE_INFINITY;
    } else {
      for (const owner of owners) owner.entryDone();
      this.#endFlushes(() => true);
    }
    this.#wake();
  }

  #refused(errno: number, what: string): void {
    const reason = `it answers ${what} with error ${errno}`;
    this.lost(reason);
    this.#ports.disconnect(reason);
  }

  #input(input: ModeInput): void {
    const next = nextMode(this.#mode, input);
    if (next === null) return;
    const before = this.#mode;
    this.#mode = next.mode;
    if (before !== next.mode) this.#ports.modeChanged(next.mode);
    switch (next.effect) {
      case 'connect':
        this.#connectDue = true;
        return this.#connect();
      case 'copy':
        if (this.#stopping === null) this.#copier.start();
        return;
      case 'close-gap':
        this.#closePos = this.queue.lastPos;
        return this.#sender.wantFlush(this.#closePos);
      case 'rejoice':
        return this.#rejoice();
      case 'drain':
        return this.#ports.log(
          'the queue to the appliance is over its bound, or a write failed: it will be caught up',
        );
      case 'open-gap':
      case 'rest':
    }
  }

  /** Not before the answer to what the appliance was asked on the connection before is known. */
  #connect(): void {
    if (!this.#connectDue || this.#asking) return;
    this.#connectDue = false;
    const most = Math.min(
      this.#limits.connectAgainMsMin * 2 ** Math.min(this.#failures, 16),
      this.#limits.connectAgainMsMax,
    );
    this.#ports.connect(this.#failures === 0 ? 0 : most * (0.5 + this.#ports.random() / 2));
  }

  #rejoice(): void {
    this.#gap = null;
    this.#sinceMs = null;
    if (!this.#synced) this.#ports.storeSynced();
    this.#synced = true;
    const blocked = this.#blocked;
    this.#blocked = [];
    for (const owner of blocked) owner.entryDone();
    for (const flush of this.#flushes) flush.pos = Math.min(flush.pos, this.queue.lastPos);
    this.#sender.wantFlush(this.queue.lastPos);
  }

  #openGap(): void {
    if (this.#asking || !this.queue.empty || this.#ports.nowMs() < this.#askAgainMs) return;
    this.#asking = true;
    const nowMs = this.#ports.nowMs();
    const sinceMs = this.#sinceMs ?? nowMs;
    const behindMs =
      sinceMs === UNKNOWN_MS ? FOR_AGES_MS : Math.ceil(nowMs - sinceMs) + this.#limits.gapMarginMs;
    this.#ports.openGap(behindMs, (gap) => {
      this.#asked(gap !== null);
      if (gap !== null) {
        this.#gap = gap;
        this.#input({ kind: 'gap-opened' });
      }
      this.#wake();
    });
  }

  #closeGap(): void {
    if (this.#asking || this.#ports.nowMs() < this.#askAgainMs) return;
    if (this.#sender.flushedPos < this.#closePos) return;
    this.#asking = true;
    this.#ports.closeGap((closed) => {
      this.#asked(closed);
      if (closed) this.#input({ kind: 'gap-closed' });
      this.#wake();
    });
  }

  #asked(well: boolean): void {
    this.#asking = false;
    if (!well) this.#askAgainMs = this.#ports.nowMs() + this.#limits.copyAgainMs;
    this.#connect();
  }

  // ── work ───────────────────────────────────────────────────────────────────────────────────────────────

  #wake(): void {
    if (this.#woken) return;
    this.#woken = true;
    this.#ports.wake();
  }

  /** Does what can be done now; asked for by `wake`. */
  work(): void {
    this.#woken = false;
    if (this.#mode === 'stopped') return;
    this.#advance();
    this.#sender.step();
    if (this.#mode === 'overrun' && this.queue.empty && !this.#asking) this.#input({ kind: 'drained' });
    if (this.#mode === 'opening-gap') this.#openGap();
    if (this.#mode === 'closing-gap') this.#closeGap();
    this.#copier.step();
    // What has been answered since, and what the copier has queued.
    this.#sender.step();
    this.#marks.step();
    this.#endFlushes(({ pos }) => pos <= this.#sender.flushedPos);
    this.#holds.step(this.#writes.underWayCount === 0, this.#ports.nowMs());
    this.#finish();
  }

  /** To be called a few times a second. */
  tick(): void {
    const nowMs = this.#ports.nowMs();
    if (this.#copier.running) this.pace.sample(nowMs);
    if (this.#mode !== 'connecting' && nowMs - this.#connectedMs > this.#limits.steadyMs) this.#failures = 0;
    this.#clear(nowMs);
    this.#store();
    this.work();
  }

  /** Begins those waiting writes that nothing holds any more. */
  #advance(): void {
    const { waiting } = this.#writes;
    if (waiting.length === 0 || this.#holds.any || this.#blocks()) return;
    const still: WriteCommand[] = [];
    this.#writes.waiting = still;
    for (const write of waiting) {
      if (this.#mayBegin(write, still)) this.#begin(write);
      else still.push(write);
    }
    this.#store();
  }

  #endFlushes(isOver: (flush: { pos: number }) => boolean): void {
    if (this.#flushes.length === 0) return;
    const over = this.#flushes.filter(isOver);
    if (over.length === 0) return;
    this.#flushes = this.#flushes.filter((flush) => !over.includes(flush));
    for (const { answer } of over) answer.done(Errno.ok);
  }

  // ── others ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Placed after every write that guests have been answered before, and before any that they are answered later. */
  mark(name: string, kind: string, done: (point: MarkPoint | Error) => void): void {
    if (this.#mode !== 'replicating' || this.#stopping !== null) {
      const why =
        this.#mode === 'connecting' ? 'the appliance is away' : `it is ${this.#mode.replace('-', ' ')}`;
      return done(
        new MidmirrorError(
          'unavailable',
          `no mark can be set now: the replicator is not replicating, ${why}`,
          {
            hint: 'a mark names a moment that the appliance has in full; try again when it has caught up',
          },
        ),
      );
    }
    this.#marks.add(name, kind, done);
    this.#wake();
  }

  /** No guest's write begins until it is let go of, or its time is over. */
  hold(done: (release: Release) => void): void {
    this.#holds.add(this.#ports.nowMs() + this.#limits.holdMsMax, done);
    this.#wake();
  }

  /** What is queued goes out and becomes durable, as far as there is a connection. Done once. */
  stop(done: () => void): void {
    this.#stopping = done;
    this.#copier.stop();
    this.#sender.wantFlush(this.queue.lastPos);
    this.#wake();
  }

  /** Guests are gone, or are hung up on: what waits for them is done with, well or not. */
  abandon(): void {
    const { waiting } = this.#writes;
    this.#writes.waiting = [];
    for (const write of waiting) write.complete(Errno.ESHUTDOWN);
    const blocked = this.#blocked;
    this.#blocked = [];
    for (const owner of blocked) owner.entryDone();
    this.#endFlushes(() => true);
  }

  #finish(): void {
    if (this.#stopping === null || this.#finishing || this.#asking) return;
    if (this.#writes.underWayCount > 0 || this.#storing) return;
    const connected = this.#mode !== 'connecting';
    if (connected && this.#sender.flushedPos < this.queue.lastPos)
      return this.#sender.wantFlush(this.queue.lastPos);
    const done = this.#stopping;
    this.#finishing = true;
    this.#syncs.ask((errno) => {
      if (errno === Errno.ok) this.regions.clear(this.#sender.flushedPos, () => false);
      this.#input({ kind: 'stop' });
      const pages = this.regions.beginStore();
      this.#ports.storeIntent(pages, () => done());
    });
  }
}

function dataBytesOf({ kind, lengthBytes }: WriteCommand): number {
  return kind === 'write' ? lengthBytes : 0;
}

/** Clean regions and those behind may take turns. */
function entriesMaxOf(first: number, last: number): number {
  return Math.ceil((last - first + 1) / 2) + 1;
}
