// The runs that cover a point, one over the other: any address is found by looking at one page of each, the first
// that has it. Nothing is loaded before somebody asks, so opening costs the same however long the history is.
import { type CatalogReader, firstEndingAfter, putExtent, type StoredRun } from '@midmirror/catalog';
import { type ExtentCursor, ExtentMap } from '@midmirror/extent-map';
import { limits } from './limits.ts';
import type { PageCache } from './page-cache.ts';
import type { Places } from './places.ts';
import { cover, tierRunOf } from './tiers.ts';

export class RunLayers implements Places {
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

  tryFind(start: number, length: number): ExtentCursor | null {
    const found = this.#begin(start, length);
    const end = start + length;
    for (const run of this.runs) {
      if (run.extents === 0) continue;
      if (covers(found, start, end)) break;
      for (let at = start; at < end; ) {
        const page = this.#cache.peek(run, at);
        if (page === null) return null;
        putRange(page, at, end, found);
        at = page.endBytes;
      }
    }
    return found.cursor(start);
  }

  async find(start: number, length: number): Promise<ExtentCursor> {
    const found = this.#begin(start, length);
    const end = start + length;
    for (const run of this.runs) {
      if (run.extents === 0) continue;
      if (covers(found, start, end)) break;
      for (let at = start; at < end; ) {
        const page = this.#cache.peek(run, at) ?? (await this.#cache.load(run, at));
        putRange(page, at, end, found);
        at = page.endBytes;
      }
    }
    return found.cursor(start);
  }

  #begin(start: number, length: number): ExtentMap {
    const found = new ExtentMap();
    const end = start + length;
    for (const c = this.top.cursor(start); c.valid && c.start < end; c.next())
      found.put(c.start, c.length, c.flags, c.source, c.offset, c.crc);
    return found;
  }
}

/** The fewest runs of a side for units `first` to `last` (segments forward, snapshots backward), oldest first. */
export async function coveringRuns(
  db: CatalogReader,
  volumeId: string,
  side: 'forward' | 'backward',
  first: number,
  last: number,
): Promise<StoredRun[]> {
  const [from, to] =
    side === 'forward' ? (['first_source', 'source'] as const) : (['snapshot', 'last_snapshot'] as const);
  const inside = (low: number, high: number) =>
    db
      .selectFrom('run')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .where('side', '=', side)
      .where(from, '>=', low)
      .where(to, '<=', high)
      .orderBy(from)
      .orderBy('source');
  const merged = cover(
    (await inside(first, last).where('level', '>', 0).execute()).map(tierRunOf),
    first,
    last,
  );
  const runs: StoredRun[] = [];
  let at = first;
  // Only what no merged run covers is looked up one by one.
  const plain = async (high: number): Promise<void> => {
    if (at <= high) runs.push(...(await inside(at, high).where('level', '=', 0).execute()));
  };
  for (const tier of merged) {
    await plain(tier.first - 1);
    runs.push(tier.run);
    at = tier.last + 1;
  }
  await plain(last);
  return runs;
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
