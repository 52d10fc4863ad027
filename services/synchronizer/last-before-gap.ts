// Which points before gaps a sync keeps as snapshots: the last consistent one, where without it the policy would go on
// past the time for a snapshot, as none is made within a gap; and before a gap that is open, always. Pure.
import type { Gap } from '@midmirror/point';

/** `openNs`: the point of the snapshot that syncs add to now. */
export function isDueBefore(gap: Gap, openNs: bigint, everySeconds: number): boolean {
  return gap.toNs === null || gap.toNs - openNs >= BigInt(everySeconds) * 1_000_000_000n;
}

/** The first such point in `(afterSeq, beforeSeq)`; null: none. */
export function lastBeforeGap(
  gaps: readonly Gap[],
  afterSeq: number,
  beforeSeq: number,
  openNs: bigint,
  everySeconds: number,
): number | null {
  const due = gaps.find(
    (gap) => gap.fromSeq > afterSeq && gap.fromSeq < beforeSeq && isDueBefore(gap, openNs, everySeconds),
  );
  return due?.fromSeq ?? null;
}
