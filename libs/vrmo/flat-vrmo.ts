// The simple VRMO: one ordered map of everything that is not on the MIM.
import { type ExtentCursor, ExtentFlag, type ExtentMap } from '@midmirror/extent-map';
import type { Vrmo } from './vrmo.ts';

export class FlatVrmo implements Vrmo {
  readonly #map: ExtentMap;

  /** Takes the map over. */
  constructor(map: ExtentMap) {
    this.#map = map;
  }

  get extentCount(): number {
    return this.#map.size;
  }

  get memoryBytes(): number {
    return this.#map.memoryBytes;
  }

  cursor(startBytes: number): ExtentCursor {
    return this.#map.cursor(startBytes);
  }

  moveOffMim(saved: ExtentMap): void {
    for (const c = saved.cursor(); c.valid; c.next()) {
      this.#map.putUnder(c.start, c.length, c.flags, c.source, c.offset, c.crc);
    }
  }

  moveOntoMim(lastSegment: number): void {
    this.#map.removeWhere((flags, source) => (flags & ExtentFlag.backward) === 0 && source <= lastSegment);
  }
}
