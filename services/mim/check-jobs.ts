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
    putBack?: { undoMark: string | null; clone: string | null; reason: string | null; bytes: number };
    lastGood: ShownPoint | null;
    firstBad: ShownPoint | null;
    cannotTell: number;
    unsteady: { bad: number; good: number }[];
    writes: { seq: number; time: string; extents: { offset: number; length: number }[] }[];
  } | null;
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

/** What has become of a restore that the monitor makes by itself; null: it is none, or has done nothing yet. */
export function printPutBack({ volume, end, undoMark }: ShownCheckJob): string | null {
  const undo = undoMark === null ? '' : `; to undo it: ${undoCommand(volume, undoMark)}`;
  if (end?.putBack === undefined) return undoMark === null ? null : `between two moments${undo}`;
  const { reason, clone, bytes } = end.putBack;
  const to = end.lastGood === null ? 'its last good point' : `write ${end.lastGood.seq}`;
  if (reason === null) return `put back to ${to}, ${printBytes(bytes)} written${undo}`;
  const instead = clone === null ? '' : `; clone ${clone} of ${to} instead`;
  return `not put back to ${to}: ${reason}${instead}`;
}
