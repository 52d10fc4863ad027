// Port: finds the extents of segments that the head map has let go of. A volume's lie in the runs of the catalogue.
import type { ExtentCursor } from '@midmirror/extent-map';

export interface OlderSegment {
  number: number;
  lastSeq: number;
}

export interface OlderExtents {
  /**
   * Makes ready to answer for these segments, the oldest first: those of the ring up to some one. The number of the
   * last for which it answers from now on, it and all before it; 0: for none.
   */
  cover(segments: readonly OlderSegment[]): Promise<number>;
  /** Segments up to this one leave the ring: whatever it finds in them counts no more. */
  drop(last: number): void;
  /**
   * The newest extents of the covered segments in a range, from the first that ends after `start` on. Null: not
   * without waiting. The cursor holds for good.
   */
  tryFind(start: number, length: number): ExtentCursor | null;
  /** As `tryFind`, waiting where it must. */
  find(start: number, length: number): Promise<ExtentCursor>;
}
