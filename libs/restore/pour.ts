// Pours streams of ranges onto a target, one stream over the other: an image, then what differs from it. What is written is
// flushed and read back in windows, as when a plan is moved; how long a stream is, and what is in it, is not known before.
import { MidmirrorError } from '@midmirror/basis';
import { RangeList } from './core/range-list.ts';
import type { Progress, RecordFacts } from './core/record.ts';
import type { WindowLimits } from './core/windows.ts';
import type { Target } from './edges/target.ts';
import { limits } from './limits.ts';
import { ontoTarget } from './onto-target.ts';
import { openTarget } from './open-target.ts';
import type { TargetPlace } from './target-place.ts';
import { type Moved, TargetWrites, type Window } from './target-writes.ts';

export interface PouredRange {
  startBytes: number;
  lengthBytes: number;
  /** Null: zeroes. The receiver's own. */
  bytes: Uint8Array | null;
}

export interface PouringOptions {
  target: Target;
  verify: boolean;
  windows?: WindowLimits;
}

export class Pouring {
  readonly #target: Target;
  readonly #windows: WindowLimits;
  readonly #writes: TargetWrites;

  constructor({ target, verify, windows = limits }: PouringOptions) {
    this.#target = target;
    this.#windows = windows;
    this.#writes = new TargetWrites(target, verify);
  }

  get moved(): Moved {
    return this.#writes.moved;
  }

  /**
   * One stream, whose ranges ascend and don't overlap; when it resolves all of it is on stable storage and has been read
   * back. `holesAreZeroes`: nothing has been written yet, and the target reads as zeroes, so zeroes cost nothing. Rejects
   * with what `ranges` rejects with, and with MidmirrorError of the target; nothing is being written any more then.
   */
  async pour(ranges: AsyncIterable<PouredRange>, holesAreZeroes: boolean): Promise<void> {
    const stream = new Stream(this.#writes, this.#windows, holesAreZeroes);
    let endBytes = 0;
    try {
      for await (const range of ranges) {
        this.#check(range, endBytes);
        endBytes = range.startBytes + range.lengthBytes;
        if (range.bytes === null && holesAreZeroes) continue;
        await stream.take(range);
      }
      await stream.end();
    } finally {
      await stream.idle();
    }
  }

  #check({ startBytes, lengthBytes, bytes }: PouredRange, endBytes: number): void {
    const inTarget = startBytes >= endBytes && startBytes + lengthBytes <= this.#target.sizeBytes;
    if (inTarget && lengthBytes > 0 && (bytes === null || bytes.length === lengthBytes)) return;
    throw new MidmirrorError(
      'corrupt',
      `a range of ${lengthBytes} bytes at ${startBytes}, after ${endBytes}, has no place in ${this.#target.name} of ${this.#target.sizeBytes} bytes`,
    );
  }
}

/** Of one stream: the window that is being written, the one before it, which is settled meanwhile, and writes in flight. */
class Stream {
  readonly #writes: TargetWrites;
  readonly #limits: WindowLimits;
  readonly #holesAreZeroes: boolean;
  readonly #inFlight = new Set<Promise<void>>();
  #failure: { error: unknown } | null = null;
  #window: Window;
  #windowBytes = 0;
  #settled: Promise<void> = Promise.resolve();

  constructor(writes: TargetWrites, windows: WindowLimits, holesAreZeroes: boolean) {
    this.#writes = writes;
    this.#limits = windows;
    this.#holesAreZeroes = holesAreZeroes;
    this.#window = this.#newWindow();
  }

  /** Resolves when there is room for more. */
  async take({ startBytes, lengthBytes, bytes }: PouredRange): Promise<void> {
    const { pieceBytesMax, windowBytesMax, windowPiecesMax } = this.#limits;
    const end = startBytes + lengthBytes;
    for (let at = startBytes; at < end; ) {
      const next = Math.min(end, at + pieceBytesMax);
      const piece = bytes === null ? null : bytes.subarray(at - startBytes, next - startBytes);
      while (this.#inFlight.size >= limits.piecesInFlightMax) await Promise.race(this.#inFlight);
      if (this.#failure !== null) throw this.#failure.error;
      this.#start(at, next - at, piece);
      at = next;
      if (this.#windowBytes >= windowBytesMax || this.#window.pieces.length === windowPiecesMax)
        await this.#turn();
    }
  }

  async end(): Promise<void> {
    if (this.#window.pieces.length > 0) await this.#turn();
    await this.#settled;
  }

  /** Nothing is under way any more. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.#inFlight, this.#settled]);
  }

  #start(startBytes: number, lengthBytes: number, bytes: Uint8Array | null): void {
    const index = this.#window.pieces.push({ startBytes, lengthBytes, zeroes: bytes === null }) - 1;
    this.#windowBytes += lengthBytes;
    const write = this.#writes
      .put(this.#window, index, bytes, this.#holesAreZeroes)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#inFlight.delete(write));
    this.#inFlight.add(write);
  }

  async #turn(): Promise<void> {
    await Promise.all(this.#inFlight);
    await this.#settled;
    if (this.#failure !== null) throw this.#failure.error;
    this.#settled = this.#writes.settle(this.#window);
    this.#settled.catch(() => {}); // who waits for it tells
    this.#window = this.#newWindow();
    this.#windowBytes = 0;
  }

  #newWindow(): Window {
    return { pieces: [], sums: new Uint32Array(this.#limits.windowPiecesMax) };
  }
}

export interface PourWish {
  place: TargetPlace;
  /** What stands beside the target. */
  record: Progress | null;
  from: RecordFacts['source'];
  point: NonNullable<RecordFacts['point']>;
  sizeBytes: number;
  allowLarger: boolean;
  /** Nobody has written to the target yet, and it reads as zeroes. */
  isEmpty: boolean;
  beforeFirstByte: () => Promise<void>;
  /** Nothing will be written. */
  dryRun: boolean;
}

/** A restore by pouring. It can't go on where one before it stopped: it begins anew. */
export class PouredRestore {
  readonly #wish: PourWish;
  readonly #target: Target | null;
  /** The file is one that an earlier pouring has made: a new one takes its place, so that it has holes. */
  readonly #takesPlace: boolean;

  /** Reads, and writes nothing. Rejects with MidmirrorError. */
  static async prepare(wish: PourWish): Promise<PouredRestore> {
    const { place, record, sizeBytes, allowLarger, dryRun } = wish;
    const takesPlace =
      place.kind === 'file' && place.sizeBytes === sizeBytes && isOwn(record, place.identity);
    const target = takesPlace ? null : await openTarget(place, sizeBytes, { allowLarger, readOnly: dryRun });
    return new PouredRestore(wish, target, takesPlace);
  }

  private constructor(wish: PourWish, target: Target | null, takesPlace: boolean) {
    this.#wish = wish;
    this.#target = target;
    this.#takesPlace = takesPlace;
  }

  /** Nothing that stands there is lost by it, but for what an earlier pouring has begun. */
  get isNew(): boolean {
    return this.#target === null || this.#wish.isEmpty;
  }

  get canFlush(): boolean {
    return this.#target?.canFlush ?? true;
  }

  /**
   * `pourAll` is given what it pours with, and whether the target has nothing in it; once it resolves the target is
   * complete. Rejects with MidmirrorError, and what `pourAll` rejects with: the target is incomplete then, and its record
   * says so.
   */
  async run(verify: boolean, pourAll: (pouring: Pouring, isNew: boolean) => Promise<void>): Promise<Moved> {
    const { place, sizeBytes, beforeFirstByte } = this.#wish;
    const ranges = new RangeList({ rangesMax: limits.rangesMax, alignBytes: 512, sizeBytes });
    ranges.add(0, sizeBytes, false);
    return await ontoTarget(
      {
        ...{ place, target: this.#target, sizeBytes, beforeFirstByte, takesPlace: this.#takesPlace },
        begin: { facts: (identity) => this.#facts(identity), ranges },
      },
      async (target) => {
        const pouring = new Pouring({ target, verify });
        await pourAll(pouring, this.isNew);
        return pouring.moved;
      },
    );
  }

  async close(): Promise<void> {
    await this.#target?.close();
  }

  #facts(targetIdentity: string | null): RecordFacts {
    const { from, point, sizeBytes, place } = this.#wish;
    return {
      source: from,
      point,
      sizeBytes,
      target: place.name,
      targetIdentity,
      how: 'compared',
      alignBytes: 512,
      undoMark: null,
      begun: new Date().toISOString(),
      poured: { madeFile: this.#target === null },
    };
  }
}

function isOwn(record: Progress | null, identity: string): boolean {
  return record?.facts.poured?.madeFile === true && record.facts.targetIdentity === identity;
}
