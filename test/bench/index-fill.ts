// Catalogues filled with the maps of many 4 KiB writes at random addresses, and merged as the appliance merges them.
import type { SeededRandom } from '@midmirror/basis';
import { type Catalog, insertRun, type RunSide } from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { TierMerger } from '../../services/mapping-index/tier-merger.ts';

export const BLOCK = 4096;
/** Of 64 GiB. */
export const BLOCKS = 2 ** 24;
const RUNS_PER_TRANSACTION = 50;

export interface Filling {
  volume: string;
  side: RunSide;
  /** Numbers of the runs: segments, or objects that are a snapshot each. */
  first: number;
  last: number;
  /** Writes in each. */
  writes: number;
  /** Flags of each extent besides those of its side. */
  flags: number;
}

export function randomAddress(random: SeededRandom): number {
  return random.below(BLOCKS) * BLOCK;
}

export async function fill(catalog: Catalog, random: SeededRandom, filling: Filling): Promise<void> {
  const { volume, side, first, last } = filling;
  for (let source = first; source <= last; ) {
    await catalog.transaction(async (tx) => {
      for (let some = 0; some < RUNS_PER_TRANSACTION && source <= last; some += 1, source += 1) {
        const map = mapOf(random, filling, source);
        const run = {
          ...{ volume_id: volume, side, source, snapshot: side === 'backward' ? source : 0 },
          ...{ from_seq: source, to_seq: source, extents: map.size, data_bytes: 0 },
        };
        await insertRun(tx, run, map);
      }
    });
  }
}

/** Seconds that it takes. */
export async function mergeAll(catalog: Catalog, volume: string, side: RunSide): Promise<number> {
  const merger = new TierMerger(catalog, (message) => process.stderr.write(`${message}\n`));
  const began = performance.now();
  merger.changed(volume, side);
  await merger.idle();
  await merger.stop();
  return (performance.now() - began) / 1000;
}

function mapOf(random: SeededRandom, { side, writes, flags }: Filling, source: number): ExtentMap {
  const map = new ExtentMap();
  const all = flags | (side === 'backward' ? ExtentFlag.backward : 0);
  const zero = (all & ExtentFlag.zero) !== 0;
  for (let i = 0; i < writes; i += 1) {
    // Where the writes of a segment lie: a record's data, and between some of them a batch's header.
    const offset = zero ? 0 : 4096 + i * 4200 - ((i * 4200) % 8);
    map.put(randomAddress(random), BLOCK, all, source, offset, zero ? 0 : i);
  }
  return map;
}
