// Readers of the segments that were read last: each knows where its segment's batches are, and learns it by walking
// them, so it is kept. Few of them: what they know has the size of the segment's batches, not of its data.
import { SegmentReader } from '@midmirror/pool';
import { limits } from './limits.ts';
import type { RingSegment } from './ring-segment.ts';

export class SegmentReaders {
  /** The one used last is the last. */
  readonly #readers = new Map<RingSegment, Promise<SegmentReader>>();

  /** The caller holds the segment. */
  of(segment: RingSegment): Promise<SegmentReader> {
    const reader = this.#readers.get(segment) ?? SegmentReader.open(segment.file);
    this.#readers.delete(segment);
    this.#readers.set(segment, reader);
    reader.catch(() => this.#readers.delete(segment)); // told of by whoever asked
    for (const oldest of this.#readers.keys()) {
      if (this.#readers.size <= limits.segmentReadersMax) break;
      this.#readers.delete(oldest);
    }
    return reader;
  }
}
