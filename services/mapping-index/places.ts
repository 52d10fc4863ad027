// Where the addresses of one point lie: asked by a mirror, answered by the runs at first, by a tree in memory once
// that is built.
import type { PlaceCursor, TreeVrmo } from '@midmirror/vrmo';

export interface Places {
  /**
   * Extents that lie in a journal, from the first that ends after `start` on; right up to `start + length`. Between
   * them: the MIM. Null: not without waiting. The cursor holds until the next call.
   */
  tryFind(start: number, length: number): PlaceCursor | null;
  /** As `tryFind`, waiting where it must. Throws RunGoneError, or `corrupt` naming run and page. */
  find(start: number, length: number): Promise<PlaceCursor>;
  /** Extents that it knows of; of runs, before what one covers of another. */
  readonly extentCount: number;
  readonly memoryBytes: number;
}

/** The tree of a mirror in use. */
export class TreePlaces implements Places {
  readonly vrmo: TreeVrmo;
  readonly #cursor: PlaceCursor;

  constructor(vrmo: TreeVrmo) {
    this.vrmo = vrmo;
    this.#cursor = vrmo.cursor(0);
  }

  get extentCount(): number {
    return this.vrmo.extentCount;
  }

  get memoryBytes(): number {
    return this.vrmo.memoryBytes;
  }

  tryFind(start: number): PlaceCursor {
    return this.#cursor.seek(start);
  }

  async find(start: number): Promise<PlaceCursor> {
    // Of its own: who waits for it may be overtaken by a `tryFind`.
    return this.vrmo.cursor(start);
  }
}
