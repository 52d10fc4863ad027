// The runs that cover a point, one over the other: any address is found by looking at one page of each, the first
// that has it. Nothing is loaded before somebody asks, so opening costs the same however long the history is.
import { firstEndingAfter, putExtent, type StoredRun } from '@midmirror/catalog';
import { type ExtentCursor, ExtentMap } from '@midmirror/extent-map';
import { limits } from './limits.ts';
import type { PageCache } from './page-cache.ts';

export class RunLayers {
  /** The first wins over all others. */
  readonly runs: readonly StoredRun[];
  /** Newer than all runs and in no run as a whole: the end of a point in the window. Wins over them. */
  readonly top: ExtentMap;
  readonly #cache: PageCache;

  constructor(runs: readonly StoredRun[], top: ExtentMap, cache: PageCache) {
    this.runs = runs;
    this.top = top;
    this.#cache = cache;
  }

  get extentCount(): number {
    return this.runs.reduce((sum, run) => sum + run.extents, this.top.size);
  }

  get memoryBytes(): number {
    return this.top.memoryBytes;
  }

  /**
   * Extents of the range, from the first that ends after `start` on. Null: a page is not in memory. The cursor holds
   * for good.
   */
  tryFind(start: number, length: number): ExtentCursor | null {
    const found = this.#begin(start, length);
    return this.#look(found, start, start + length, { layer: 0, at: start }) ? found.cursor(start) : null;
  }

  /** As `tryFind`, waiting where it must. Throws RunGoneError, or `corrupt` naming run and page. */
  async find(start: number, length: number): Promise<ExtentCursor> {
    const found = this.#begin(start, length);
    const end = start + length;
    const place = { layer: 0, at: start };
    while (!this.#look(found, start, end, place)) {
      // What lies below is mostly asked next: one statement for all costs little more than one for each.
      const [run, ...below] = this.runs.slice(place.layer);
      const page = await this.#cache.load(run!, place.at, below);
      putRange(page, place.at, end, found);
      place.at = page.endBytes;
    }
    return found.cursor(start);
  }

  /** Goes on from `place`. False: it stands at a page that is not in memory. */
  #look(found: ExtentMap, start: number, end: number, place: { layer: number; at: number }): boolean {
    for (; place.layer < this.runs.length; place.layer += 1, place.at = start) {
      const run = this.runs[place.layer]!;
      if (run.extents === 0) continue;
      if (place.at === start && covers(found, start, end)) return true;
      while (place.at < end) {
        const page = this.#cache.peek(run, place.at);
        if (page === null) return false;
        putRange(page, place.at, end, found);
        place.at = page.endBytes;
      }
    }
    return true;
  }

  #begin(start: number, length: number): ExtentMap {
    const found = new ExtentMap();
    const end = start + length;
    for (const c = this.top.cursor(start); c.valid && c.start < end; c.next())
      found.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
    return found;
  }
}

function putRange(page: Parameters<typeof putExtent>[0], from: number, end: number, into: ExtentMap): void {
  for (let i = firstEndingAfter(page, from); i < page.count && page.starts[i]! < end; i += 1)
    putExtent(page, i, into, true);
}

/** Whether extents lie over all of the range. Looks at a few only: what is longer is asked of the runs. */
function covers(map: ExtentMap, start: number, end: number): boolean {
  const c = map.cursor(start);
  let at = start;
  for (let looked = 0; looked < limits.coverLookMax && c.valid && c.start <= at; looked += 1) {
    at = c.end;
    if (at >= end) return true;
    c.next();
  }
  return false;
}
