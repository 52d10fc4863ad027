// FIG. 12 [0071]: the physical extent list that a VRMO's update has emitted becomes a backward movelist.

/**
 * Ranges as pairs of start and length in bytes, disjoint, in any order: sorted by start, and those that make one block
 * of addresses combined into one. The argument stays as it is.
 */
export function sortAndJoin(emitted: readonly number[]): number[] {
  const order = Array.from({ length: emitted.length / 2 }, (_, i) => 2 * i);
  order.sort((a, b) => emitted[a]! - emitted[b]!);
  const movelist: number[] = [];
  for (const at of order) {
    const start = emitted[at]!;
    const length = emitted[at + 1]!;
    const last = movelist.length - 2;
    if (last >= 0 && movelist[last]! + movelist[last + 1]! === start) movelist[last + 1]! += length;
    else movelist.push(start, length);
  }
  return movelist;
}
