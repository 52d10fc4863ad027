// Jobs of the monitor: walks and searches, waited for, and restores that it makes by itself. They belong to the appliance:
// who waits may go away.
import type { ShownPoint } from './output.ts';
import type { Session } from './session.ts';
import { printBytes } from '@midmirror/basis';
import { undoCommand } from '@midmirror/restore';
import { waitForEnd } from './wait-for-end.ts';

export interface ShownCheckJob {
  job: string;
  task: 'certify' | 'bisect' | 'restore';
  volume: string;
  check: string;
  cause: string;
  status: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  created: string;
  ended: string | null;
  probes: number;
  /** Points whose earlier verdict holds. */
  reused: number;
  probesMax: number | null;
  /** Of a restore that has begun to write. */
  undoMark: string | null;
  /** Why it has failed, or waits. */
  error: { code: string; message: string; hint: string | null } | null;
  end: {
    kind:
      | 'certified'
      | 'condemned'
      | 'past-condemned'
      | 'cannot-tell'
      | 'found'
      | 'range'
      | 'nothing-bad'
      | 'nothing-good'
      | 'restored'
      | 'not-restored';
    putBack?: PutBack;
    lastGood: ShownPoint | null;
    firstBad: ShownPoint | null;
    condemned?: number;
    cannotTell: number;
    unsteady: { bad: number; good: number }[];
    writes: { seq: number; time: string; extents: { offset: number; length: number }[] }[];
  } | null;
}

/** What has become of a volume that was to be put back by itself. */
export interface PutBack {
  undoMark: string | null;
  clone: string | null;
  /** Null: it was put back. */
  reason: string | null;
  bytes: number;
}

const ASK_EVERY_MS = 250;

export function checkJobPath(job: string): string {
  return `/check-jobs/${encodeURIComponent(job)}`;
}

/** Points that were probed apart from those of which it was known. */
export function printProbes({ task, probes, reused, probesMax, end }: ShownCheckJob): string {
  if (task === 'certify') {
    const points = probes + reused;
    const condemned =
      end?.condemned === undefined || end.condemned === 0 ? '' : `, ${end.condemned} condemned`;
    return `${points} ${points === 1 ? 'point' : 'points'}: ${probes} probed, ${reused} as before${condemned}`;
  }
  const most = probesMax === null ? '' : ` of ${probesMax} at most`;
  const before = reused === 0 ? '' : `, ${reused} as before`;
  return `${probes} ${probes === 1 ? 'probe' : 'probes'}${most}${before}`;
}

/** As `waitForEnd`. */
export async function waitForCheck(session: Session, begun: ShownCheckJob): Promise<ShownCheckJob> {
  return await waitForEnd(session, begun, {
    ...{ path: checkJobPath(begun.job), commands: 'mim check', everyMs: ASK_EVERY_MS },
    stateOf: ({ status }) => status,
    tell(job) {
      session.progress(`${job.task} of ${job.volume} by ${job.check}: ${printProbes(job)}`);
    },
  });
}

export function printPutBack(
  volume: string,
  seq: number,
  { undoMark, clone, reason, bytes }: PutBack,
): string {
  if (reason !== null) {
    const instead = clone === null ? '' : `; clone ${clone} of write ${seq} instead`;
    return `not put back to write ${seq}: ${reason}${instead}`;
  }
  const undo = undoMark === null ? '' : `; to undo it: ${undoCommand(volume, undoMark)}`;
  return `put back to write ${seq}, ${printBytes(bytes)} written${undo}`;
}

/** Of a restore; null: it is none, or has done nothing yet. */
export function printRestore({ volume, end, undoMark }: ShownCheckJob): string | null {
  const putBack = end?.putBack;
  const good = end?.lastGood;
  if (putBack !== undefined && good !== null && good !== undefined)
    return printPutBack(volume, good.seq, putBack);
  return undoMark === null ? null : `between two moments; to undo it: ${undoCommand(volume, undoMark)}`;
}
