// Makes regions that are behind equal again, guests writing all the while. Windows of neighbouring regions are asked
// for their digests, several ahead; then, piece by piece and in order: guests' writes to the piece are held, those in
// flight to it end, it is read from the primary, what differs is queued, and it is let go of. Nothing is asked of the
// network while a piece is held. What lies before the cursor is fed with guests' writes from then on, also where the
// rest of its region is still behind.
import { isZero } from '@midmirror/basis';
import type { Limits } from '../limits.ts';
import type { CopyPace } from './copy-pace.ts';
import type { RegionMap } from './region-map.ts';
import type { SendQueue } from './send-queue.ts';

const DIGEST_BYTES = 32;

export interface CopierPorts {
  nowMs(): number;
  /** SHA-256 of the appliance's blocks, one after the other; null: there are none to be had now. */
  askDigests(
    start: number,
    length: number,
    blockBytes: number,
    done: (digests: Uint8Array | null) => void,
  ): void;
  /** The bytes are the copier's until its next call; null: they can't be read. */
  readPrimary(start: number, length: number, done: (bytes: Uint8Array | null) => void): void;
  digestOf(bytes: Uint8Array): Uint8Array;
}

export interface CopierHost {
  /** A guest's write to it is under way on the primary. */
  isBusy(start: number, length: number): boolean;
  /** A piece has been let go of. */
  letGo(): void;
  /** There is something to send. */
  queued(): void;
  /** No region is behind any more. */
  caughtUp(): void;
}

interface Window {
  from: number;
  to: number;
  blockBytes: number;
  /** Null: they are asked for, or will be again. */
  digests: Uint8Array | null;
  /** When they are asked for again; infinite: they are asked for. */
  askMs: number;
}

export class Copier {
  readonly #regions: RegionMap;
  readonly #queue: SendQueue;
  readonly #ports: CopierPorts;
  readonly #host: CopierHost;
  readonly #pace: CopyPace;
  readonly #limits: Limits;
  readonly #pieceBytes: number;
  readonly #shareBytes: number;
  readonly #zeroDigests = new Map<number, Uint8Array>();
  #session = 0;
  #running = false;
  readonly #windows: Window[] = [];
  /** Where the next window begins, if that is behind; and where the sweep has begun anew. */
  #nextFrom = 0;
  /** All of the windows before it is equal, or on its way. */
  #cursor = 0;
  /** Its part before the cursor has missed a write: it is done again. */
  #spoiled = -1;
  #held: { from: number; to: number } | null = null;
  #reading = false;
  #againMs = 0;
  /** Nothing more was ready: a look through all regions is not repeated at once. */
  #searchMs = 0;

  constructor(
    regions: RegionMap,
    queue: SendQueue,
    ports: CopierPorts,
    host: CopierHost,
    pace: CopyPace,
    limits: Limits,
    shareBytes: number,
  ) {
    this.#shareBytes = shareBytes;
    this.#regions = regions;
    this.#queue = queue;
    this.#ports = ports;
    this.#host = host;
    this.#pace = pace;
    this.#limits = limits;
    const wholeBlocks = Math.floor(queue.bytesMax / 8 / limits.blockBytes) * limits.blockBytes;
    this.#pieceBytes = Math.min(limits.pieceBytesMax, Math.max(limits.blockBytes, wholeBlocks));
  }

  start(): void {
    this.stop();
    this.#running = true;
    this.#pace.restart(this.#ports.nowMs());
  }

  stop(): void {
    this.#session += 1;
    this.#running = false;
    this.#windows.length = 0;
    this.#held = null;
    this.#reading = false;
    this.#spoiled = -1;
    this.#nextFrom = this.#cursor = 0;
    this.#againMs = 0;
    this.#searchMs = 0;
  }

  get running(): boolean {
    return this.#running;
  }

  /** A guest's write there has to wait. */
  holds(start: number, length: number): boolean {
    return this.#held !== null && start < this.#held.to && start + length > this.#held.from;
  }

  /** The end of what is fed of a region that is behind: its own start unless it is being copied. */
  fedEnd(region: number): number {
    const start = this.#regions.startOf(region);
    if (!this.#running || region === this.#spoiled) return start;
    return this.#regions.regionOf(this.#cursor) === region ? this.#cursor : start;
  }

  /** A write has not been fed: the region is behind, also where it had been copied already. */
  missed(region: number): void {
    if (this.fedEnd(region) > this.#regions.startOf(region)) this.#spoiled = region;
  }

  /** Does what can be done now. To be called when anything it waits for may have come. */
  step(): void {
    if (!this.#running) return;
    if (this.#regions.behindCount === 0) {
      this.stop();
      return this.#host.caughtUp();
    }
    if (this.#ports.nowMs() < this.#againMs) return;
    this.#ask();
    this.#copy();
  }

  // ── windows ────────────────────────────────────────────────────────────────────────────────────────────

  #ask(): void {
    for (const window of this.#windows)
      if (this.#ports.nowMs() >= window.askMs && window.digests === null) this.#askDigests(window);
    while (this.#windows.length < this.#limits.windowsMax) {
      if (this.#ports.nowMs() < this.#searchMs) return;
      const window = this.#nextWindow();
      if (window === null) {
        this.#searchMs = this.#ports.nowMs() + this.#limits.searchAgainMs;
        return;
      }
      this.#windows.push(window);
      if (this.#windows.length === 1) this.#enter(window);
      this.#nextFrom = window.to;
      this.#askDigests(window);
    }
  }

  #askDigests(window: Window): void {
    const session = this.#session;
    const { from, to, blockBytes } = window;
    window.askMs = Number.POSITIVE_INFINITY;
    this.#ports.askDigests(from, to - from, blockBytes, (digests) => {
      if (session !== this.#session) return;
      const whole = digests?.length === Math.ceil((to - from) / blockBytes) * DIGEST_BYTES;
      if (whole) window.digests = digests;
      else window.askMs = this.#ports.nowMs() + this.#limits.copyAgainMs;
      this.step();
    });
  }

  #nextWindow(): Window | null {
    const { regionBytes } = this.#regions;
    // The rest of a region that is larger than a window.
    if (this.#nextFrom % regionBytes !== 0 && this.#nextFrom < this.#regions.volumeBytes)
      return this.#windowAt(this.#nextFrom, this.#regions.endOf(this.#regions.regionOf(this.#nextFrom)));
    const after = this.#search(this.#regions.regionOf(this.#nextFrom), this.#regions.count);
    const first = after !== -1 ? after : this.#search(0, this.#regions.regionOf(this.#nextFrom));
    if (first === -1) return null;
    const from = this.#regions.startOf(first);
    let to = this.#regions.endOf(first);
    for (
      let region = first + 1;
      to - from < this.#limits.windowBytesMax && this.#isReady(region);
      region += 1
    )
      to = this.#regions.endOf(region);
    return this.#windowAt(from, to);
  }

  #search(from: number, to: number): number {
    for (let region = this.#regions.nextBehind(from); region !== -1 && region < to; ) {
      if (this.#isReady(region)) return region;
      region = this.#regions.nextBehind(region + 1);
    }
    return -1;
  }

  /** Behind, asked for by no window, and the appliance has everything that was ever sent of it. */
  #isReady(region: number): boolean {
    if (region >= this.#regions.count || !this.#regions.isBehind(region)) return false;
    if (this.#regions.lastPos(region) > this.#queue.ackedPos) return false;
    const [from, to] = [this.#regions.startOf(region), this.#regions.endOf(region)];
    return this.#windows.every((window) => to <= window.from || from >= window.to);
  }

  #windowAt(from: number, end: number): Window {
    const to = Math.min(end, from + this.#limits.windowBytesMax);
    const blockBytes =
      to - from > this.#limits.fineWindowBytesMax ? this.#limits.blockBytes : this.#limits.fineBlockBytes;
    return { from, to, blockBytes, digests: null, askMs: 0 };
  }

  #enter(window: Window): void {
    if (window.from % this.#regions.regionBytes === 0) {
      this.#spoiled = -1;
      this.#cursor = window.from;
    }
  }

  /** What has failed is tried again from the start of the sweep, a little later. */
  #again(): void {
    this.stop();
    this.#running = true;
    this.#againMs = this.#ports.nowMs() + this.#limits.copyAgainMs;
    this.#host.letGo();
  }

  // ── pieces ─────────────────────────────────────────────────────────────────────────────────────────────

  #copy(): void {
    const window = this.#windows[0];
    if (window === undefined || window.digests === null || this.#reading) return;
    if (this.#held === null) {
      const length = Math.min(this.#pieceBytes, window.to - this.#cursor);
      if (!this.#hasRoom(length) || !this.#pace.mayCopy(this.#ports.nowMs())) return;
      this.#held = { from: this.#cursor, to: this.#cursor + length };
    }
    const { from, to } = this.#held;
    if (this.#host.isBusy(from, to - from)) return;
    this.#reading = true;
    const session = this.#session;
    this.#ports.readPrimary(from, to - from, (bytes) => {
      if (session !== this.#session) return;
      this.#reading = false;
      if (bytes === null) return this.#again();
      // Guests have taken the room meanwhile: another time.
      if (this.#queue.hasRoom(to - from, this.#entriesOf(to - from))) this.#compare(window, from, bytes);
      this.#held = null;
      this.#host.letGo();
      this.step();
    });
  }

  /** Copies have their share of the queue, and leave guests a quarter of it whatever is in it. */
  #hasRoom(length: number): boolean {
    const { usedBytes, copiedBytes, bytesMax, entries, entriesMax } = this.#queue;
    if (copiedBytes + length > Math.min(bytesMax / 2, this.#shareBytes)) return false;
    return usedBytes + length <= bytesMax * 0.75 && entries + this.#entriesOf(length) <= entriesMax / 2;
  }

  #entriesOf(length: number): number {
    return Math.ceil(length / this.#limits.fineBlockBytes) + 1;
  }

  #compare(window: Window, from: number, bytes: Uint8Array): void {
    const { blockBytes } = window;
    const nowMs = this.#ports.nowMs();
    let runFrom = 0;
    let runKind: Block = Block.equal;
    const close = (at: number): void => {
      if (runKind === Block.zero) this.#queue.addZeroes(from + runFrom, at - runFrom, nowMs);
      if (runKind === Block.other) this.#queue.addCopy(from + runFrom, bytes.subarray(runFrom, at), nowMs);
    };
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = bytes.subarray(at, Math.min(at + blockBytes, bytes.length));
      const digestAt = ((from + at - window.from) / blockBytes) * DIGEST_BYTES;
      const kind = this.#kindOf(block, window.digests!.subarray(digestAt, digestAt + DIGEST_BYTES));
      if (kind === runKind) continue;
      close(at);
      runFrom = at;
      runKind = kind;
    }
    close(bytes.length);
    // Equal blocks too: what the appliance holds of them may not be on stable storage there yet.
    this.#copied(from, from + bytes.length, this.#queue.addNothing(nowMs));
  }

  #kindOf(block: Uint8Array, digest: Uint8Array): Block {
    const zero = isZero(block);
    if (equal(digest, this.#zeroDigest(block.length))) return zero ? Block.equal : Block.other;
    if (zero) return Block.zero;
    return equal(digest, this.#ports.digestOf(block)) ? Block.equal : Block.other;
  }

  #zeroDigest(length: number): Uint8Array {
    let digest = this.#zeroDigests.get(length);
    if (digest === undefined) {
      digest = this.#ports.digestOf(new Uint8Array(length));
      // Two sizes of blocks and the volume's last, shorter one.
      if (this.#zeroDigests.size < 8) this.#zeroDigests.set(length, digest);
    }
    return digest;
  }

  #copied(from: number, to: number, pos: number): void {
    const regions = this.#regions;
    for (
      let region = regions.regionOf(from);
      region < regions.count && regions.startOf(region) < to;
      region += 1
    ) {
      regions.sent(region, pos);
      if (regions.endOf(region) <= to && region !== this.#spoiled) regions.markClean(region);
    }
    this.#cursor = to;
    this.#pace.copied(to - from);
    const window = this.#windows[0]!;
    if (to === window.to) {
      this.#windows.shift();
      if (this.#windows.length > 0) this.#enter(this.#windows[0]!);
    }
    this.#host.queued();
  }
}

const Block = { equal: 0, zero: 1, other: 2 } as const;
type Block = (typeof Block)[keyof typeof Block];

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
