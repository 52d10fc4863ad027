// The patent's inclusive block numbers for our half-open bytes: block n is the 512 bytes from 512 n on.
import type { RangeIndex } from '../range-index.ts';
import type { Extent } from '../vrmo.ts';

export const BLOCK = 512;
/** A volume of the blocks 0 to 99. */
export const VOLUME_BYTES = 100 * BLOCK;

/** A move of the blocks [first, last]. Its bytes lie one after the other in `source`, from 0 on. */
export function moveOf(first: number, last: number, source: number): Extent {
  return { start: first * BLOCK, length: (last - first + 1) * BLOCK, flags: 0, source, offset: 0, crc: 0 };
}

/** Pairs of start and length in bytes as [first, last]. */
export function inclusive(ranges: readonly number[]): [number, number][] {
  const blocks: [number, number][] = [];
  for (let i = 0; i < ranges.length; i += 2)
    blocks.push([ranges[i]! / BLOCK, (ranges[i]! + ranges[i + 1]!) / BLOCK - 1]);
  return blocks;
}

/** As the patent's figures do it: what is on the MIM of a move's range is emitted, and moved. */
export function emitAndMove(index: RangeIndex, moved: Extent, emitted: number[]): void {
  index.emit(moved.start, moved.length, emitted);
  index.move(moved);
}
