// Walks and searches of the monitor, waited for. They belong to the appliance: who waits may go away.
import type { ShownPoint } from './output.ts';
import type { Session } from './session.ts';
import { waitForEnd } from './wait-for-end.ts';

export interface ShownCheckJob {
  job: string;
  task: 'certify' | 'bisect';
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
      | 'nothing-good';
    lastGood: ShownPoint | null;
    firstBad: ShownPoint | null;
    condemned?: number;
    cannotTell: number;
    unsteady: { bad: number; good: number }[];
    writes: { seq: number; time: string; extents: { offset: number; length: number }[] }[];
  } | null;
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
