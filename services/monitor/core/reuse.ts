// Whether an earlier verdict says what a new probe would: the same check, and nothing that it looked at then is different
// at the other moment. A check that gets the same bytes for each read asks the same reads again and comes to the same
// verdict. That holds for programs that go by the mirror alone; one that asks the clock or the network must say so
// (`steady: false`). So only moments whose relevant blocks changed are probed again, and identical ones never.
import { type ByteRange, overlaps } from './read-set.ts';
import type { Verdict } from './verdict.ts';

export interface EarlierVerdict {
  seq: number;
  verdict: Verdict;
  /** What the check is, its settings and what it goes by (version of the program, signatures), as one text. */
  checkKey: string;
  /** What it read, sorted. Null: not known; then only a moment with the same bytes everywhere will do. */
  read: readonly ByteRange[] | null;
}

export interface Probe {
  seq: number;
  checkKey: string;
  /** False: its verdict depends on more than the mirror's bytes. */
  steady: boolean;
}

/** `changed`: ranges that may differ between the two moments, sorted; it doesn't matter which is the older. */
export function holdsFor(
  earlier: EarlierVerdict,
  probe: Probe,
  changed: readonly ByteRange[],
): earlier is EarlierVerdict & { verdict: 'good' | 'bad' } {
  // What could not be told may be told the next time: there was no memory, no time, no program.
  if (earlier.verdict === 'cannot-tell' || earlier.checkKey !== probe.checkKey || !probe.steady) return false;
  if (earlier.seq === probe.seq) return true;
  return earlier.read === null
    ? changed.every(({ lengthBytes }) => lengthBytes === 0)
    : !overlaps(earlier.read, changed);
}

/**
 * Earlier verdicts worth asking the change map for, the nearest first: on either side the nearest, as the least has changed
 * to it, and the nearest of the other kind: what was put back is as it was before the bad ones.
 */
export function nearestVerdicts<V extends { seq: number; verdict: Verdict }>(
  earlier: readonly V[],
  seq: number,
): V[] {
  const byDistance = [...earlier].sort((a, b) => Math.abs(a.seq - seq) - Math.abs(b.seq - seq));
  const side = (is: (each: V) => boolean): V[] => {
    const found = byDistance.filter(is);
    return (['good', 'bad'] as const).flatMap(
      (verdict) => found.find((each) => each.verdict === verdict) ?? [],
    );
  };
  const chosen = new Set([...side((each) => each.seq <= seq), ...side((each) => each.seq > seq)]);
  return byDistance.filter((each) => chosen.has(each));
}
