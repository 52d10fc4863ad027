// A piece of an extent as a record of a tree: how a place is cut along with its range.
import { ExtentFlag } from '@midmirror/extent-map';
import type { MultiwayTree } from './multiway-tree.ts';
import type { Extent } from './vrmo.ts';

/** Writes `[from, to)` of an extent into a slot. What is not the whole of it can't be verified by its checksum alone. */
export function writePiece(tree: MultiwayTree, slot: number, extent: Extent, from: number, to: number): void {
  const { start, length, flags, source, offset, crc } = extent;
  const whole = to - from === length;
  const skipped = flags & ExtentFlag.zero ? 0 : from - start;
  tree.write(slot, from, whole ? flags : flags & ~ExtentFlag.whole, source, offset + skipped, crc, to - from);
}
