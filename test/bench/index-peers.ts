// What the index is held against: the walk through every segment's map, an array of all extents that is sorted when a
// point is opened, and a table with a row for each extent in the same database with the same settings.
import { statSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import type { SeededRandom } from '@midmirror/basis';
import { type Catalog, PAGE_WORDS, pagesOf, type PelPage, type StoredRun } from '@midmirror/catalog';
import { ExtentMap } from '@midmirror/extent-map';
import { Kysely, sql } from 'kysely';
import { sqliteDialect } from '../../libs/catalog/sqlite-dialect.ts';
import { PageCache, RunLayers } from '@midmirror/runs';
import { BLOCK, BLOCKS, randomAddress } from './index-fill.ts';
import { median } from './measure.ts';

const WALKS = 5;
const ROW_LOOKS = 2000;
const ARRAY_LOOKS = 1_000_000;

/** Milliseconds of a look at every segment's map, the newest first, until one has the address. */
export async function chainWalk(
  catalog: Catalog,
  random: SeededRandom,
  runs: readonly StoredRun[],
  cacheBytes: number,
): Promise<number> {
  const took: number[] = [];
  for (let walk = 0; walk < WALKS; walk += 1) {
    const newestFirst = runs.slice(0, 1 + random.below(runs.length)).reverse();
    const cache = new PageCache(catalog.db, cacheBytes);
    const at = randomAddress(random);
    const began = performance.now();
    for (const run of newestFirst) {
      const found = await new RunLayers([run], new ExtentMap(), cache).find(at, BLOCK);
      if (found.valid && found.start <= at) break;
    }
    took.push(performance.now() - began);
  }
  return median(took);
}

/** A point as an array of all its extents: what opening costs is what making it costs. Writes are whole blocks. */
export class SortedArray {
  readonly #starts: Float64Array;
  readonly #words: Uint32Array;

  private constructor(starts: Float64Array, words: Uint32Array) {
    this.#starts = starts;
    this.#words = words;
  }

  /** `runs`: the oldest first. */
  static async open(catalog: Catalog, runs: readonly StoredRun[]): Promise<SortedArray> {
    const count = runs.reduce((sum, run) => sum + run.extents, 0);
    const keys = new Float64Array(count);
    const all = new Uint32Array(count * PAGE_WORDS);
    let written = 0;
    const take = (page: PelPage): void => {
      all.set(page.words, written * PAGE_WORDS);
      // Block and order of writing in one number: sorting puts the newest of a block last.
      for (const start of page.starts) {
        keys[written] = (start / BLOCK) * BLOCKS + written;
        written += 1;
      }
    };
    for (const run of runs) for await (const page of pagesOf(catalog.db, run)) take(page);
    keys.sort();
    const starts = new Float64Array(count);
    const words = new Uint32Array(count * PAGE_WORDS);
    let size = 0;
    for (let i = 0; i < count; i += 1) {
      const block = Math.floor(keys[i]! / BLOCKS);
      if (i + 1 < count && Math.floor(keys[i + 1]! / BLOCKS) === block) continue;
      const from = (keys[i]! - block * BLOCKS) * PAGE_WORDS;
      starts[size] = block * BLOCK;
      words.set(all.subarray(from, from + PAGE_WORDS), size * PAGE_WORDS);
      size += 1;
    }
    return new SortedArray(starts.slice(0, size), words.slice(0, size * PAGE_WORDS));
  }

  get size(): number {
    return this.#starts.length;
  }

  get memoryBytes(): number {
    return this.#starts.byteLength + this.#words.byteLength;
  }

  /** Index of the extent at an address; -1: none. */
  find(address: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle]! <= address) low = middle + 1;
      else high = middle;
    }
    return low > 0 && address < this.#starts[low - 1]! + BLOCK ? low - 1 : -1;
  }

  lookupsPerSecond(random: SeededRandom): number {
    const addresses = Float64Array.from({ length: ARRAY_LOOKS }, () => randomAddress(random));
    let found = 0;
    for (const address of addresses) if (this.find(address) >= 0) found += 1;
    const began = performance.now();
    for (const address of addresses) if (this.find(address) >= 0) found += 1;
    const seconds = (performance.now() - began) / 1000;
    return found > 0 ? ARRAY_LOOKS / seconds : 0;
  }
}

export interface RowTable {
  fillSeconds: number;
  bytesPerExtent: number;
  /** Until the first look is answered. */
  openMs: number;
  lookupsPerSecond: number;
}

/**
 * A row for each write, by address and write number, as clustered as SQLite can; filled in the order of its key, which
 * no journal could. A look is the newest row of an address at or before a write. Its thread and its settings are the
 * catalogue's.
 */
export async function rowTable(path: string, random: SeededRandom, writes: number): Promise<RowTable> {
  const began = performance.now();
  const database = new DatabaseSync(path);
  database.exec('PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL');
  database.exec(`create table extent (volume_id text, start_bytes integer, seq integer, length integer,
    flags integer, source integer, offset integer, crc integer,
    primary key (volume_id, start_bytes, seq)) without rowid`);
  const insert = database.prepare('insert into extent values (?, ?, ?, ?, ?, ?, ?, ?)');
  const keys = Float64Array.from({ length: writes }, (_, i) => random.below(BLOCKS) * BLOCKS + i).sort();
  const volume = 'a-volume-of-the-bench';
  database.exec('begin');
  for (const key of keys) {
    const block = Math.floor(key / BLOCKS);
    const seq = key - block * BLOCKS;
    insert.run(
      volume,
      block * BLOCK,
      seq,
      BLOCK,
      1,
      Math.floor(seq / 16_000),
      seq * 4,
      random.below(2 ** 32),
    );
  }
  database.exec('commit');
  database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  database.close();
  const fillSeconds = (performance.now() - began) / 1000;
  const bytesPerExtent = statSync(path).size / writes;

  const db = new Kysely<unknown>({ dialect: sqliteDialect(path) });
  const look = async (): Promise<void> => {
    const address = randomAddress(random);
    await sql`select * from extent where volume_id = ${volume} and start_bytes <= ${address}
      and start_bytes > ${address - BLOCK} and seq <= ${random.below(writes)}
      order by start_bytes desc, seq desc limit 1`.execute(db);
  };
  await sql`select 1`.execute(db);
  const opens: number[] = [];
  for (let i = 0; i < 40; i += 1) {
    const from = performance.now();
    await look();
    opens.push(performance.now() - from);
  }
  const from = performance.now();
  for (let i = 0; i < ROW_LOOKS; i += 1) await look();
  const lookupsPerSecond = ROW_LOOKS / ((performance.now() - from) / 1000);
  await db.destroy();
  return { fillSeconds, bytesPerExtent, openMs: median(opens), lookupsPerSecond };
}
