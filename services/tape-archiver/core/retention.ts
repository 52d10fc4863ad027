// Which tapes of a volume the policy lets go, and why each of the others stays. Pure.
//
// Only what the schedule wrote goes: what somebody asked for, or imported, stays until they forget it, and takes no
// place among those that the policy counts. What can't be restored takes no place either, so that one that can stands in
// for it. It stays nevertheless while the policy would count it, were what it lacks found again: a lost archive that it
// needs may lie on a cartridge that comes back. What is lost itself goes as soon as nothing that stays needs it.
import { type Keep, kept, type Kept, tapeKeep, type VolumePolicy } from '@midmirror/policy';
import { type Archive, byIdOf, usableAmong } from './archive.ts';

export interface Retention {
  /** Ids, each before those that it needs: forgotten in this order, no step leaves one without its chain. */
  drops: string[];
  kept: { archive: string; why: string }[];
}

/** `archives`: all of one volume. `inUse`: those that a job, a restore or a reading needs now. */
export function retain(
  archives: readonly Archive[],
  policy: VolumePolicy,
  inUse: ReadonlySet<string>,
): Retention {
  const oldestFirst = archives.toSorted(byAge);
  const byId = byIdOf(archives);
  const keep = tapeKeep(policy);
  const why = new Map<string, string>();
  const add = (id: string, reason: string): void => {
    if (!why.has(id)) why.set(id, reason);
  };
  for (const { id, cause } of oldestFirst) if (cause !== 'schedule') add(id, notCounted(cause));
  for (const { id } of oldestFirst) if (inUse.has(id)) add(id, 'a job or a restore needs it');
  const counted = oldestFirst.filter(({ cause, lost }) => cause === 'schedule' && !lost);
  const usable = counted.filter(usableAmong(byId));
  for (const [id, rule] of kept(candidatesOf(usable), keep)) add(id, reasonOf(rule, keep));
  const newest = usable.at(-1);
  if (newest !== undefined) add(newest.id, 'the newest of the schedule that can be restored');
  for (const [id, rule] of kept(candidatesOf(counted), keep))
    add(id, `${reasonOf(rule, keep)}, if what it lacks comes back`);
  const seen = new Set<string>();
  for (const id of [...why.keys()]) keepChain(id, byId, seen, add);

  const drops = oldestFirst
    .filter(({ id }) => !why.has(id))
    .toSorted((a, b) => b.chain.length - a.chain.length);
  return {
    drops: drops.map(({ id }) => id),
    kept: oldestFirst.filter(({ id }) => why.has(id)).map(({ id }) => ({ archive: id, why: why.get(id)! })),
  };
}

/** Of one point the one that was written later is the newer. */
function byAge(a: Archive, b: Archive): number {
  return compare(a.timeNs, b.timeNs) || compare(a.createdNs, b.createdNs) || compare(a.id, b.id);
}

function compare<T extends bigint | string>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function candidatesOf(archives: readonly Archive[]): { id: string; timeNs: bigint; held: boolean }[] {
  return archives.map(({ id, timeNs }) => ({ id, timeNs, held: false }));
}

/**
 * By the chains of the chain too: one that is not as it should be must not cost another its own. `seen`: whose chains are
 * kept already.
 */
function keepChain(
  id: string,
  byId: ReadonlyMap<string, Archive>,
  seen: Set<string>,
  add: (id: string, reason: string) => void,
): void {
  const name = byId.get(id)!.name;
  const waiting = seen.has(id) ? [] : [id];
  seen.add(id);
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const needed of byId.get(next)?.chain ?? []) {
      if (seen.has(needed)) continue;
      seen.add(needed);
      waiting.push(needed);
      if (byId.has(needed)) add(needed, `${name} needs it`);
    }
  }
}

function notCounted(cause: string): string {
  const came = cause === 'imported' ? 'imported' : 'written on request';
  return `${came}: the policy lets go only what the schedule wrote`;
}

function reasonOf(rule: Kept, keep: Keep): string {
  switch (rule) {
    case 'last':
      return keep.last === 1 ? 'the newest (tapeKeepLast)' : `one of the newest ${keep.last} (tapeKeepLast)`;
    case 'daily':
      return 'the last of its day (tapeKeepDaily)';
    case 'weekly':
      return 'the last of its week (tapeKeepWeekly)';
    case 'monthly':
      return 'the last of its month (tapeKeepMonthly)';
    case 'yearly':
      return 'the last of its year (tapeKeepYearly)';
    default:
      return rule;
  }
}
