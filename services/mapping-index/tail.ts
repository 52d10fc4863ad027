// The newest end of a volume's history: descriptors of durable writes whose segment has no run yet, as they
// came over the bus. Bounded by the journal's ring, of which it holds the descriptors and no data.
//
// They come in the order of the journal, but some come again: an owner that has started again, or has found that the
// stream lost something, publishes a segment's descriptors from the first on, cut into messages in another way.
import { type Batch, packedBatches } from '@midmirror/journal';

export interface TailSegment {
  segment: number;
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

export class Tail {
  readonly #segments = new Map<number, TailSegment>();

  add(position: number, bytes: Uint8Array): void {
    const batches = [...packedBatches(bytes)];
    const number = batches[0]?.batch.segment;
    if (number === undefined) return;
    const segment = this.#segments.get(number) ?? {
      ...{ segment: number, firstPosition: position, lastOffset: -1 },
      messages: [],
    };
    this.#segments.set(number, segment);
    segment.firstPosition = Math.min(segment.firstPosition, position);
    const fresh = batches.find(({ batch }) => batch.offset > segment.lastOffset);
    if (fresh === undefined) return;
    const { firstSeq, timeNs } = fresh.batch;
    segment.messages.push({ bytes: fresh.at === 0 ? bytes : bytes.slice(fresh.at), firstSeq, timeNs });
    segment.lastOffset = batches.at(-1)!.batch.offset;
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
  }

  /** Everything before it is in runs; null: all is. */
  get firstPosition(): number | null {
    let first: number | null = null;
    for (const { firstPosition } of this.#segments.values())
      first = Math.min(first ?? firstPosition, firstPosition);
    return first;
  }
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
