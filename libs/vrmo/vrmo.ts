// Virtual recovery mapping object [0053]: where each address of a volume at one point lies, in a journal or on
// the MIM. The port between mirrors and the structures that answer for them.
import type { ExtentCursor, ExtentMap } from '@midmirror/extent-map';

export interface Vrmo {
  /** Extents held, and the bytes of memory that they take. */
  readonly extentCount: number;
  readonly memoryBytes: number;
  /** Extents that lie in a journal, from the first that ends after `startBytes` on. Between them: the MIM. */
  cursor(startBytes: number): ExtentCursor;
  /** A sync has saved these ranges and is about to overwrite them on the MIM: those still there move [0065]. */
  moveOffMim(saved: ExtentMap): void;
  /** The MIM now holds what the segments up to this one held. Only for points at or after the MIM's. */
  moveOntoMim(lastSegment: number): void;
}
