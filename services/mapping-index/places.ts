// Where the addresses of one point lie: asked by a mirror, answered by the runs at first, by a tree in memory once
// that is built.
import type { ExtentCursor } from '@midmirror/extent-map';
import type { Vrmo } from '@midmirror/vrmo';

export interface Places {
  /**
   * Extents that lie in a journal, from the first that ends after `start` on; right up to `start + length`. Between
   * them: the MIM. Null: not without waiting. The cursor holds until the next call.
   */
  tryFind(start: number, length: number): ExtentCursor | null;
  /** As `tryFind`, waiting where it must. Throws RunGoneError, or `corrupt` naming run and page. */
  find(start: number, length: number): Promise<ExtentCursor>;
  /** Extents that it knows of; of runs, before what one covers of another. */
  readonly extentCount: number;
  readonly memoryBytes: number;
}

/** The tree of a mirror in use. */
export class TreePlaces implements Places {
  readonly vrmo: Vrmo;

  constructor(vrmo: Vrmo) {
    this.vrmo = vrmo;
  }

  get extentCount(): number {
    return this.vrmo.extentCount;
  }

  get memoryBytes(): number {
    return this.vrmo.memoryBytes;
  }

  tryFind(start: number): ExtentCursor {
    return this.vrmo.cursor(start);
  }

  async find(start: number): Promise<ExtentCursor> {
    return this.vrmo.cursor(start);
  }
}
