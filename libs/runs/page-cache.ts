// Pages of runs in memory, of all volumes, up to a limit of bytes: what was used longest ago goes first.
import { type CatalogReader, type PelPage, pageAt, pagesAt, type StoredRun } from '@midmirror/catalog';
import { limits } from './limits.ts';

/** Start 8 and four words of 4 an extent, and what the objects around them take. */
const EXTENT_BYTES = 24;
const PAGE_OVERHEAD_BYTES = 400;

interface CachedRun {
  id: number;
  /** Ascending. */
  pages: PelPage[];
}

export class PageCache {
  readonly #db: CatalogReader;
  readonly #bytesMax: number;
  readonly #runs = new Map<number, CachedRun>();
  /** In the order of their last use. */
  readonly #used = new Map<PelPage, CachedRun>();
  readonly #loading = new Map<string, Promise<PelPage>>();
  #bytes = 0;
  hits = 0;
  misses = 0;

  constructor(db: CatalogReader, bytesMax: number) {
    this.#db = db;
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get bytesMax(): number {
    return this.#bytesMax;
  }

  get pageCount(): number {
    return this.#used.size;
  }

  /** The page of a run that answers for an address, if it is here. */
  peek(run: StoredRun, address: number): PelPage | null {
    const cached = this.#runs.get(run.id);
    const page = pageIn(cached, address);
    if (page === null) return null;
    this.hits += 1;
    this.#used.delete(page);
    this.#used.set(page, cached!);
    return page;
  }

  /**
   * The page of a run that answers for an address, and of the runs `below` those that can be had along with it.
   * Throws RunGoneError, or `corrupt` naming run and page: of this run alone.
   */
  async load(run: StoredRun, address: number, below: readonly StoredRun[] = []): Promise<PelPage> {
    const known = this.peek(run, address);
    if (known !== null) return known;
    const key = `${run.id}:${address}`;
    let loading = this.#loading.get(key);
    if (loading === undefined) {
      loading = this.#fetch(run, address, below).finally(() => this.#loading.delete(key));
      this.#loading.set(key, loading);
    }
    return await loading;
  }

  async #fetch(run: StoredRun, address: number, below: readonly StoredRun[]): Promise<PelPage> {
    const runs = [run];
    for (const other of below) {
      if (runs.length === limits.pagesAtOnce) break;
      if (other.extents > 0 && pageIn(this.#runs.get(other.id), address) === null) runs.push(other);
    }
    this.misses += runs.length;
    const pages = runs.length === 1 ? [] : await pagesAt(this.#db, runs, address);
    for (let i = pages.length - 1; i > 0; i -= 1) if (pages[i] !== null) this.#keep(runs[i]!.id, pages[i]!);
    const page = pages[0] ?? (await pageAt(this.#db, run, address));
    this.#keep(run.id, page);
    return page;
  }

  #keep(runId: number, page: PelPage): void {
    const cached = this.#runs.get(runId) ?? { id: runId, pages: [] };
    const at = lastStartingBy(cached.pages, page.startBytes);
    if (cached.pages[at]?.startBytes === page.startBytes) return;
    cached.pages.splice(at + 1, 0, page);
    this.#runs.set(runId, cached);
    this.#used.set(page, cached);
    this.#bytes += sizeOf(page);
    for (const [oldest, of] of this.#used) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#drop(oldest, of);
    }
  }

  #drop(page: PelPage, of: CachedRun): void {
    this.#used.delete(page);
    of.pages.splice(lastStartingBy(of.pages, page.startBytes), 1);
    if (of.pages.length === 0) this.#runs.delete(of.id);
    this.#bytes -= sizeOf(page);
  }
}

function pageIn(cached: CachedRun | undefined, address: number): PelPage | null {
  const page = cached?.pages[lastStartingBy(cached.pages, address)];
  return page === undefined || address >= page.endBytes ? null : page;
}

function sizeOf(page: PelPage): number {
  return page.count * EXTENT_BYTES + PAGE_OVERHEAD_BYTES;
}

/** Index of the last page that starts at or before an address; -1: none. */
function lastStartingBy(pages: readonly PelPage[], address: number): number {
  let low = 0;
  let high = pages.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (pages[middle]!.startBytes <= address) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
