// Virtual recovery mapping object [0053]: where each address of a volume at one point lies, in a journal or on
// the MIM. The port between mirrors and the structures that answer for them.
import type { ExtentMap } from '@midmirror/extent-map';

/** A range of addresses, in bytes, and where in a journal its bytes lie. */
export interface Extent {
  readonly start: number;
  readonly length: number;
  /** Of ExtentFlag. */
  readonly flags: number;
  /** Number of the segment, or of the backward object. */
  readonly source: number;
  /** Bytes within the source. */
  readonly offset: number;
  readonly crc: number;
}

/** Walks the extents that lie in a journal in ascending order; between them: the MIM. ExtentCursor is one. */
export interface PlaceCursor extends Extent {
  readonly valid: boolean;
  /** Exclusive. */
  readonly end: number;
  next(): void;
  /** Goes to the first extent that ends after `start`. */
  seek(start: number): this;
}

export interface Vrmo {
  /** Extents held, and the bytes of memory that they take. */
  readonly extentCount: number;
  readonly memoryBytes: number;
  /** Extents that lie in a journal, from the first that ends after `startBytes` on. Between them: the MIM. */
  cursor(startBytes: number): PlaceCursor;
  /**
   * The backward movelist of a sync with these moves, as pairs of start and length in bytes: what it would overwrite of
   * what is still on the MIM [0065]. Changes nothing.
   */
  backwardMovelist(moves: ExtentMap): number[];
  /** A sync has saved these ranges and is about to overwrite them on the MIM: those still there move [0065]. */
  moveOffMim(saved: ExtentMap): void;
  /** The MIM now holds what the segments up to this one held. Only for points at or after the MIM's. */
  moveOntoMim(lastSegment: number): void;
}
