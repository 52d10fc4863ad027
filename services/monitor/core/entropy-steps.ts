// By which moments the writes before a point are gone through to be judged: where they begin, and steps up to the point,
// each as what has changed since the one before. The same for each asking, as long as the same moments are kept. Pure.

export interface Moment {
  seq: number;
  timeMs: number;
}

/** The moments that are kept of a volume, in no order. */
export interface KeptMoments {
  snapshots: readonly Moment[];
  /** Minutes in which something was written, with the last write of each. */
  minutes: readonly { minuteMs: number; lastSeq: number }[];
  /** From this write on each is a moment. */
  everyFrom: Moment;
}

export interface StepLimits {
  windowMs: number;
  /** Nothing before it is looked at. */
  fromMs: number;
  /** One step in so long a time. */
  stepMs: number;
}

const MINUTE_MS = 60_000;

/**
 * The beginning, then a step for each time in which something was written, then the point: by write, each once.
 * The beginning is the newest moment before the window, else the oldest there is. Null: nothing is kept before the point.
 */
export function stepsTo(
  point: Moment,
  { snapshots, minutes, everyFrom }: KeptMoments,
  { windowMs, fromMs, stepMs }: StepLimits,
): Moment[] | null {
  const ends = minutes
    // Of a minute that is not over more writes may come: asked later, its end would be another.
    .filter(({ minuteMs, lastSeq }) => lastSeq >= everyFrom.seq && minuteMs + MINUTE_MS <= point.timeMs)
    .map(({ minuteMs, lastSeq }) => ({ seq: lastSeq, timeMs: minuteMs + MINUTE_MS }));
  const kept = [...snapshots, everyFrom, ...ends]
    .filter(({ seq, timeMs }) => seq < point.seq && timeMs >= fromMs)
    .sort((a, b) => a.seq - b.seq || a.timeMs - b.timeMs)
    .filter(({ seq }, i, all) => seq !== all[i - 1]?.seq);
  if (kept.length === 0) return null;
  const beginMs = point.timeMs - windowMs;
  const begin = Math.max(
    0,
    kept.findLastIndex(({ timeMs }) => timeMs <= beginMs),
  );
  const slotOf = ({ timeMs }: Moment): number => Math.floor(timeMs / stepMs);
  const after = kept.slice(begin + 1);
  const steps = after.filter((each, i) => i + 1 === after.length || slotOf(each) !== slotOf(after[i + 1]!));
  return [kept[begin]!, ...steps, point];
}
