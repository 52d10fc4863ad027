// The newest end of a volume's history: descriptors of durable writes whose segment has no run yet, as they
// came over the bus. Bounded by the journal's ring, of which it holds the descriptors and no data.
import { type Batch, packedBatches } from '@midmirror/journal';

export interface TailSegment {
  segment: number;
  firstPosition: number;
  lastPosition: number;
  messages: Uint8Array[];
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
    const { segment } = first.value.batch;
    const known = this.#segments.get(segment);
    if (known === undefined)
      this.#segments.set(segment, {
        segment,
        firstPosition: position,
        lastPosition: position,
        messages: [bytes],
      });
    else if (position > known.lastPosition) {
      known.messages.push(bytes);
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
  for (const bytes of segment.messages)
    for (const { at, batch } of packedBatches(bytes)) yield { batch, bytes, at };
}
