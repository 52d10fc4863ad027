// The newest end of a volume's history: descriptors of durable writes whose segment has no run yet, as they
// came over the bus. Bounded by the journal's ring, of which it holds the descriptors and no data.
//
// They come in the order of the journal, but some come again: an owner that has started again, or has found that the
// stream lost something, publishes a segment's descriptors from the first on, cut into messages in another way. And some
// come late: of segments whose run is stored already, or of an owner that was displaced and does not know it yet. What
// such a one wrote after its successor had read its journal was never answered, and is cut off: a newer epoch says by
// its first segment and write where the older ones ended.
import { type Batch, packedBatches } from '@midmirror/journal';

export interface TailSegment {
  segment: number;
  epoch: number;
  /** From where on the stream must be read to have them all. */
  firstPosition: number;
  /** Where its last batch stands. */
  lastOffset: number;
  messages: TailMessage[];
}

export interface TailMessage {
  bytes: Uint8Array;
  /** Of its first batch. */
  firstSeq: number;
  timeNs: bigint;
}

export interface PlacedBatch {
  batch: Batch;
  /** The batch's header stands at `at` of `bytes`, its descriptors follow. */
  bytes: Uint8Array;
  at: number;
}

/** Where the segments and writes of an epoch begin, as far as heard of. */
interface Beginning {
  epoch: number;
  segment: number;
  firstSeq: number;
}

/** Of the newest epochs; older ones have no segments left. */
const BEGINNINGS_MAX = 16;

export class Tail {
  readonly #segments = new Map<number, TailSegment>();
  /** Whose run is stored; all up to `#goneUpTo` have left the ring. */
  readonly #stored = new Set<number>();
  #goneUpTo = 0;
  /** By epoch, ascending. */
  #beginnings: Beginning[] = [];

  /** What of it was not here yet; null: nothing. */
  add(position: number, bytes: Uint8Array): TailMessage | null {
    const batches = [...packedBatches(bytes)];
    const first = batches[0]?.batch;
    if (first === undefined || this.isDone(first.segment)) return null;
    this.#heardOf(first);
    const end = this.#endOf(first.epoch);
    if (end !== null && first.segment >= end.segment) return null;
    const cutAt = end === null ? -1 : batches.findIndex(({ batch }) => batch.firstSeq >= end.firstSeq);
    const real = cutAt === -1 ? batches : batches.slice(0, cutAt);
    if (real.length === 0) return null;
    const { segment: number, epoch } = first;
    const segment = this.#segments.get(number) ?? {
      ...{ segment: number, epoch, firstPosition: position, lastOffset: -1 },
      messages: [],
    };
    this.#segments.set(number, segment);
    segment.firstPosition = Math.min(segment.firstPosition, position);
    const fresh = real.find(({ batch }) => batch.offset > segment.lastOffset);
    if (fresh === undefined) return null;
    const { firstSeq, timeNs } = fresh.batch;
    const until = cutAt === -1 ? bytes.length : batches[cutAt]!.at;
    const whole = fresh.at === 0 && until === bytes.length;
    const message = { bytes: whole ? bytes : bytes.slice(fresh.at, until), firstSeq, timeNs };
    segment.messages.push(message);
    segment.lastOffset = real.at(-1)!.batch.offset;
    return message;
  }

  /** Its descriptors are not needed: its run is stored, or it has left the ring. */
  isDone(segment: number): boolean {
    return segment <= this.#goneUpTo || this.#stored.has(segment);
  }

  /** Segments as they are now, oldest first. */
  get segments(): TailSegment[] {
    return [...this.#segments.values()].sort((a, b) => a.segment - b.segment);
  }

  segment(number: number): TailSegment | undefined {
    return this.#segments.get(number);
  }

  /** Its run is stored. */
  drop(segment: number): void {
    this.#segments.delete(segment);
    this.#stored.add(segment);
  }

  /** All segments up to this one have left the ring. */
  recycled(last: number): void {
    this.#goneUpTo = Math.max(this.#goneUpTo, last);
    for (const number of this.#segments.keys()) if (number <= last) this.#segments.delete(number);
    for (const number of this.#stored) if (number <= last) this.#stored.delete(number);
  }

  #heardOf({ epoch, segment, firstSeq }: Batch): void {
    const known = this.#beginnings.find((beginning) => beginning.epoch === epoch);
    if (known !== undefined && known.segment <= segment && known.firstSeq <= firstSeq) return;
    const others = this.#beginnings.filter((beginning) => beginning !== known);
    const beginning = {
      epoch,
      segment: Math.min(known?.segment ?? segment, segment),
      firstSeq: Math.min(known?.firstSeq ?? firstSeq, firstSeq),
    };
    this.#beginnings = [...others, beginning].sort((a, b) => a.epoch - b.epoch).slice(-BEGINNINGS_MAX);
    for (const older of [...this.#segments.values()]) if (older.epoch < epoch) this.#cut(older, beginning);
  }

  /** Where the epochs after this one begin; null: none is known. */
  #endOf(epoch: number): Beginning | null {
    const newer = this.#beginnings.filter((beginning) => beginning.epoch > epoch);
    if (newer.length === 0) return null;
    return {
      epoch,
      segment: Math.min(...newer.map(({ segment }) => segment)),
      firstSeq: Math.min(...newer.map(({ firstSeq }) => firstSeq)),
    };
  }

  #cut(older: TailSegment, newer: Beginning): void {
    const kept: TailMessage[] = [];
    let lastOffset = -1;
    for (const message of older.segment >= newer.segment ? [] : older.messages) {
      const batches = [...packedBatches(message.bytes)];
      const cutAt = batches.findIndex(({ batch }) => batch.firstSeq >= newer.firstSeq);
      if (cutAt === 0) break;
      const until = cutAt === -1 ? message.bytes.length : batches[cutAt]!.at;
      kept.push({ ...message, bytes: message.bytes.subarray(0, until) });
      lastOffset = batches.at(cutAt === -1 ? -1 : cutAt - 1)!.batch.offset;
      if (cutAt !== -1) break;
    }
    if (kept.length === 0) this.#segments.delete(older.segment);
    else Object.assign(older, { messages: kept, lastOffset });
  }

  /** Everything before it is in runs; null: all is. */
  get firstPosition(): number | null {
    let first: number | null = null;
    for (const { firstPosition } of this.#segments.values())
      first = Math.min(first ?? firstPosition, firstPosition);
    return first;
  }
}

/** The last write of a segment that is known; 0: none. */
export function lastSeqOf(segment: TailSegment): number {
  const batch = lastBatch(
    segment,
    () => true,
    ({ writeCount }) => writeCount > 0,
  );
  return batch === undefined ? 0 : batch.firstSeq + batch.writeCount - 1;
}

export function* batchesOf(segment: TailSegment): Generator<PlacedBatch> {
  for (const { bytes } of segment.messages)
    for (const { at, batch } of packedBatches(bytes)) yield { batch, bytes, at };
}

/** The last batch of a segment for which `isIt` holds; `mayHold` holds for the messages up to one, none behind has it. */
export function lastBatch(
  { messages }: TailSegment,
  mayHold: (message: TailMessage) => boolean,
  isIt: (batch: Batch) => boolean,
): Batch | undefined {
  let low = 0;
  let high = messages.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (mayHold(messages[middle]!)) low = middle + 1;
    else high = middle;
  }
  for (let i = low - 1; i >= 0; i -= 1) {
    const batches = Array.from(packedBatches(messages[i]!.bytes), ({ batch }) => batch);
    const found = batches.findLast(isIt);
    if (found !== undefined) return found;
  }
  return undefined;
}
