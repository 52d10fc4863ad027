// Looks whether a probe is needed at all: an earlier verdict of the same check may hold, by the change map.
import type { ByteRange } from '../core/read-set.ts';
import { type EarlierVerdict, holdsFor, nearestVerdicts, type Probe } from '../core/reuse.ts';

/** Null: it has to be probed. `changes`: ranges that may differ between two moments, sorted; older one first. */
export async function knownVerdict(
  earlier: readonly EarlierVerdict[],
  probe: Probe,
  changes: (fromSeq: number, toSeq: number) => Promise<readonly ByteRange[]>,
): Promise<(EarlierVerdict & { verdict: 'good' | 'bad' }) | null> {
  if (!probe.steady) return null;
  for (const each of nearestVerdicts(earlier, probe)) {
    const same = each.seq === probe.seq;
    const changed = same ? [] : await changes(Math.min(each.seq, probe.seq), Math.max(each.seq, probe.seq));
    if (holdsFor(each, probe, changed)) return each;
  }
  return null;
}
