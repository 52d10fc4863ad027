// Gaps: spans of a volume's timeline whose moments its primary never had, because writes reached the appliance out of
// their order (a copy that catches up). Both ends are points; what lies strictly between is refused, never guessed (I3).
// Of one volume they follow one another: each begins at or after the end of the one before, by writes and by time.

export interface Gap {
  /** 1, 2, 3, … on its volume; a later gap has a greater one. */
  number: number;
  /** The last consistent point. */
  fromSeq: number;
  /** Up to when that point was what the primary held: at or after its write. */
  fromNs: bigint;
  /** The first consistent point again; null: the gap is open, nothing after `fromSeq` is a past point. */
  toSeq: number | null;
  toNs: bigint | null;
  reason: string | null;
}

export function hasSeqWithin({ fromSeq, toSeq }: Gap, seq: number): boolean {
  return seq > fromSeq && (toSeq === null || seq < toSeq);
}

export function hasTimeWithin({ fromNs, toNs }: Gap, timeNs: bigint): boolean {
  return timeNs > fromNs && (toNs === null || timeNs < toNs);
}

/** The one that a write lies strictly within. `gaps` in their order. */
export function gapAroundSeq(gaps: readonly Gap[], seq: number): Gap | null {
  const gap = lastWhere(gaps, ({ fromSeq }) => fromSeq < seq);
  return gap !== null && hasSeqWithin(gap, seq) ? gap : null;
}

/** The one that has no end yet. */
export function openGapOf(gaps: readonly Gap[]): Gap | null {
  const last = gaps.at(-1);
  return last?.toSeq === null ? last : null;
}

/** Where a gap is opened or closed: after which write, and when. */
export interface GapEnd {
  seq: number;
  timeNs: bigint;
}

/**
 * A gap opened at `at`, the time of whose write is `writeNs`. The primary has been written to without the appliance for
 * `behindNs`: what was asked of that time would be answered with an older moment.
 */
export function openedGap(
  gaps: readonly Gap[],
  at: GapEnd,
  since: { writeNs: bigint; behindNs: bigint },
  reason: string | null,
): Gap {
  const last = gaps.at(-1);
  const fromNs = [since.writeNs, last?.toNs ?? 0n].reduce(
    (latest, timeNs) => (timeNs > latest ? timeNs : latest),
    at.timeNs - since.behindNs,
  );
  return { number: (last?.number ?? 0) + 1, fromSeq: at.seq, fromNs, toSeq: null, toNs: null, reason };
}

/** At most `max`: the two oldest become one, and the points between them are refused too. */
export function joinOldest(gaps: readonly Gap[], max: number): Gap[] {
  const joined = [...gaps];
  while (joined.length > max) {
    const [first, second] = joined.splice(0, 2) as [Gap, Gap];
    const { fromSeq, fromNs, reason } = first;
    joined.unshift({ ...second, fromSeq, fromNs, reason });
  }
  return joined;
}

/** The last of those that hold, which come first. */
function lastWhere(gaps: readonly Gap[], holds: (gap: Gap) => boolean): Gap | null {
  let [from, to] = [0, gaps.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (holds(gaps[middle]!)) from = middle + 1;
    else to = middle;
  }
  return gaps[from - 1] ?? null;
}
