// Where a restore stands that the monitor makes by itself: plain JSON, kept with its job.
import type { CatalogReader } from '@midmirror/catalog';

export interface PutBackState {
  /** The point that it goes back to. */
  good: { seq: number; timeNs: string };
  /** The newest moment that is known to be bad. */
  badSeq: number;
  sinceMs: number;
  /** Somebody has been told that it waits. */
  toldWaits: boolean;
  /** The name of the mark, noted before it is made: one that is there is this job's. */
  mark: string | null;
  marks: number;
  /** The mark is there: from now on the volume may be between two moments. */
  begun: boolean;
  probes: number;
  bytesDone: number;
}

export function beginPutBack(good: PutBackState['good'], badSeq: number, nowMs: number): PutBackState {
  return {
    ...{ good, badSeq, sinceMs: nowMs, toldWaits: false },
    ...{ mark: null, marks: 0, begun: false, probes: 0, bytesDone: 0 },
  };
}

/** Volumes that may be between two moments: what a check would say of them now is worth nothing. */
export async function volumesBetweenMoments(db: CatalogReader): Promise<Set<string>> {
  const rows = await db
    .selectFrom('check_job')
    .select(['volume_id', 'state'])
    .where('task', '=', 'restore')
    .where('status', 'in', ['queued', 'running'])
    .execute();
  const begun = rows.filter(({ state }) => (JSON.parse(state) as PutBackState).begun);
  return new Set(begun.map(({ volume_id }) => volume_id));
}
