// One moment over several volumes that are replicated from this host: the writes of all are held, each gets its mark
// where its writes stand, and goes on from there. A write that follows one of another volume's, which it can only know
// of once that one was answered, comes after the moment too. Nothing waits for an appliance while writes are held.
import { MidmirrorError, messageOf } from '@midmirror/basis';
import type { HostReplicator } from './host-replicators.ts';

export interface MarkedVolume {
  volume: string;
  seq: number;
  time: string;
  /** How long its writes were held. */
  heldMs: number;
}

/** Throws when one of the volumes has no mark: the moment is not whole then, and the message says which have it. */
export async function markGroup(
  group: string,
  members: readonly HostReplicator[],
  name: string,
): Promise<MarkedVolume[]> {
  const holds = await holdAll(members);
  const marks = await Promise.allSettled(
    members.map(({ api }, i) =>
      api.json<Omit<MarkedVolume, 'volume'>>('POST', '/marks', { name, kind: 'group', hold: holds[i] }),
    ),
  );
  const marked: MarkedVolume[] = [];
  const missing: string[] = [];
  for (const [i, mark] of marks.entries()) {
    const { volume } = members[i]!.status;
    if (mark.status === 'fulfilled') marked.push({ ...mark.value, volume });
    else missing.push(`${volume}: ${messageOf(mark.reason)}`);
  }
  if (missing.length === 0) return marked;
  const there = marked.map(({ volume }) => volume).join(', ') || 'none';
  throw new MidmirrorError(
    'conflict',
    `"${name}" is not a moment of the whole group "${group}": ${missing.join('; ')}`,
    { hint: `volumes that have the mark: ${there}. Make another, under another name` },
  );
}

async function holdAll(members: readonly HostReplicator[]): Promise<string[]> {
  const holds = await Promise.allSettled(
    members.map(async ({ api }) => (await api.json<{ hold: string }>('POST', '/holds')).hold),
  );
  const failed = holds.find((hold) => hold.status === 'rejected');
  if (failed === undefined) return holds.map((hold) => (hold as PromiseFulfilledResult<string>).value);
  await Promise.allSettled(
    holds.map((hold, i) =>
      hold.status === 'fulfilled' ? members[i]!.api.json('DELETE', `/holds/${hold.value}`) : null,
    ),
  );
  throw failed.reason;
}
