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
  status: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  created: string;
  ended: string | null;
  probes: number;
  probesMax: number | null;
  /** Of a restore that has begun to write. */
  undoMark: string | null;
  /** Why it has failed, or waits. */
  error: { code: string; message: string; hint: string | null } | null;
  end: {
    kind:
      | 'certified'
      | 'condemned'
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

/** As `waitForEnd`. */
export async function waitForCheck(session: Session, begun: ShownCheckJob): Promise<ShownCheckJob> {
  return await waitForEnd(session, begun, {
    ...{ path: checkJobPath(begun.job), commands: 'mim check', everyMs: ASK_EVERY_MS },
    stateOf: ({ status }) => status,
    tell({ task, volume, check, probes, probesMax }) {
      const most = probesMax === null ? '' : ` of ${probesMax} at most`;
      session.progress(`${task} of ${volume} by ${check}: ${probes} probes${most}`);
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
