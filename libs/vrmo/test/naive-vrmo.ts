// The naive twin: for each block of a volume the place in a journal, or nothing: on the MIM. Slow and plainly right.
import { ExtentFlag } from '@midmirror/extent-map';
import type { Extent } from '../vrmo.ts';
import { BLOCK } from './blocks.ts';

export interface NaivePlace {
  /** All but `whole`, which is about extents, not blocks. */
  flags: number;
  source: number;
  /** Where this block's bytes lie; -1 for zeroes. */
  offset: number;
}

export class NaiveVrmo {
  readonly places: (NaivePlace | null)[];

  constructor(blocks: number) {
    this.places = Array.from({ length: blocks }, () => null);
  }

  /** Gives the blocks that were on the MIM until now. */
  move({ start, length, flags, source, offset }: Extent): number[] {
    const moved: number[] = [];
    for (let at = 0; at < length; at += BLOCK) {
      const block = (start + at) / BLOCK;
      if (this.places[block] !== null) continue;
      moved.push(block);
      this.places[block] = {
        flags: flags & ~ExtentFlag.whole,
        source,
        offset: flags & ExtentFlag.zero ? -1 : offset + at,
      };
    }
    return moved;
  }

  ontoMim(lastSegment: number): void {
    this.places.forEach((place, block) => {
      if (place !== null && !(place.flags & ExtentFlag.backward) && place.source <= lastSegment)
        this.places[block] = null;
    });
  }
}
