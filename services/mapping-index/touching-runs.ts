// The runs of level 0 that have something of a range, the newest first: what a merged run does not have, none of
// the runs below it has, so a long history is passed over in large steps.
import {
  type CatalogReader,
  coveringRuns,
  endOfExtent,
  firstEndingAfter,
  newestRunsWithin,
  PAGE_WORDS,
  runsWithin,
  type StoredRun,
} from '@midmirror/catalog';
import { ExtentFlag } from '@midmirror/extent-map';
import { type PageCache, tierRunOf } from '@midmirror/runs';

export interface Range {
  offset: number;
  length: number;
}

export interface RangeExtent extends Range {
  zero: boolean;
}

/** Units (segments, snapshots) from `first` to `last`. */
export async function* touchingRuns(
  db: CatalogReader,
  cache: PageCache,
  volumeId: string,
  side: 'forward' | 'backward',
  units: { first: number; last: number },
  range: Range,
): AsyncGenerator<{ run: StoredRun; extents: RangeExtent[] }> {
  for await (const stack of covering(db, volumeId, side, units)) {
    for (let run = stack.pop(); run !== undefined; run = stack.pop()) {
      const extents = await extentsIn(cache, run, range);
      if (extents.length === 0) continue;
      if (run.level === 0) yield { run, extents };
      else {
        const { first, last } = tierRunOf(run);
        stack.push(...(await runsWithin(db, volumeId, side, { first, last }, run.level - 1)));
      }
    }
  }
}

/** The fewest runs for the units, some at a time, of which the last is the newest. The ring has few segments. */
async function* covering(
  db: CatalogReader,
  volumeId: string,
  side: 'forward' | 'backward',
  { first, last }: { first: number; last: number },
): AsyncGenerator<StoredRun[]> {
  if (side === 'forward') return yield await coveringRuns(db, volumeId, side, first, last);
  for (let upTo = last; ; ) {
    const runs = await newestRunsWithin(db, volumeId, { first, last: upTo });
    if (runs.length === 0) return;
    upTo = runs[0]!.snapshot - 1;
    yield runs;
  }
}

/** What of a range a run has, clipped to it; neighbours of a kind joined. */
async function extentsIn(cache: PageCache, run: StoredRun, range: Range): Promise<RangeExtent[]> {
  const extents: RangeExtent[] = [];
  const end = range.offset + range.length;
  if (run.extents === 0) return extents;
  for (let at = range.offset; at < end; ) {
    const page = await cache.load(run, at);
    for (let i = firstEndingAfter(page, at); i < page.count && page.starts[i]! < end; i += 1) {
      const offset = Math.max(page.starts[i]!, range.offset);
      const until = Math.min(endOfExtent(page, i), end);
      const zero = (page.words[i * PAGE_WORDS]! & ExtentFlag.zero) !== 0;
      const last = extents.at(-1);
      if (last !== undefined && last.offset + last.length === offset && last.zero === zero)
        last.length += until - offset;
      else extents.push({ offset, length: until - offset, zero });
    }
    at = page.endBytes;
  }
  return extents;
}
