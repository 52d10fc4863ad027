// The newest end of a volume's history: descriptors of durable writes whose segment has no run yet, as they
// came over the bus. Bounded by the journal's ring, of which it holds the descriptors and no data.
import { type Batch, packedBatches } from '@midmirror/journal';

export interface TailSegment {
  segment: number;
  firstPosition: number;
  lastPosition: number;
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
    const first = packedBatches(bytes).next();
    if (first.done === true) return;
    const { segment, firstSeq, timeNs } = first.value.batch;
    const message = { bytes, firstSeq, timeNs };
    const known = this.#segments.get(segment);
    if (known === undefined)
      this.#segments.set(segment, {
        segment,
        firstPosition: position,
        lastPosition: position,
        messages: [message],
      });
    else if (position > known.lastPosition) {
      known.messages.push(message);
      known.lastPosition = position;
    }
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
