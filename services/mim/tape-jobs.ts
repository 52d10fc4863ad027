// Jobs of tapes: shown, and waited for. They belong to the appliance: who waits may go away.
import { printBytes } from '@midmirror/basis';
import { printSeconds, type ShownPoint, table } from './output.ts';
import type { Session } from './session.ts';
import { waitForEnd } from './wait-for-end.ts';

export interface ShownJob {
  job: string;
  task: 'write' | 'verify';
  volume: string;
  archive: string;
  kind: 'image' | 'difference';
  point: ShownPoint;
  library: string;
  cause: string;
  state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  created: string;
  ended: string | null;
  /** Of one that has not ended: why it waits. */
  error: { code: string; message: string; hint: string | null } | null;
  progress: {
    phase: string;
    bytesDone: number;
    bytesTotal: number;
    bytesPerSecond: number;
    barcode: string | null;
  } | null;
}

const ASK_EVERY_MS = 500;
const TELL_EVERY_MS = 1000;

export function jobPath(job: string): string {
  return `/tape-jobs/${encodeURIComponent(job)}`;
}

/** As `waitForEnd`. */
export async function waitForJob(session: Session, begun: ShownJob): Promise<ShownJob> {
  let told = Number.NEGATIVE_INFINITY;
  return await waitForEnd(session, begun, {
    ...{ path: jobPath(begun.job), commands: 'mim tape', everyMs: ASK_EVERY_MS },
    stateOf: ({ state }) => state,
    tell(job) {
      if (session.json && performance.now() - told < TELL_EVERY_MS) return;
      told = performance.now();
      tell(session, job);
    },
  });
}

function tell(session: Session, job: ShownJob): void {
  if (session.json) {
    const { job: id, archive, state, progress, error } = job;
    session.answer({ progress: { job: id, archive, state, error, ...progress } }, () => '');
  } else session.progress(progressOf(job));
}

function progressOf({ state, task, progress, error }: ShownJob): string {
  if (error !== null) return `waits: ${error.message}`;
  if (progress === null)
    return state === 'queued' ? 'waits for its turn at the library' : `${task} has begun`;
  const { phase, bytesDone, bytesTotal, bytesPerSecond, barcode } = progress;
  const left = bytesPerSecond > 0 ? Math.ceil((bytesTotal - bytesDone) / bytesPerSecond) : null;
  const rate = bytesPerSecond > 0 ? `, ${printBytes(Math.round(bytesPerSecond))}/s` : '';
  const time = left === null || left < 0 ? '' : `, ${printSeconds(left)} left`;
  const amount = bytesTotal > 0 ? ` ${printBytes(bytesDone)} of ${printBytes(bytesTotal)}` : '';
  return `${phase}${amount}${rate}${time}${barcode === null ? '' : `, ${barcode}`}`;
}

export function printJobs(jobs: readonly ShownJob[]): string {
  if (jobs.length === 0) return 'There is no tape job.';
  const rows = jobs.map((job) => [
    job.job,
    job.task,
    job.volume,
    job.kind,
    `write ${job.point.seq}`,
    job.created,
    stateOf(job),
  ]);
  return table(['JOB', 'TASK', 'VOLUME', 'KIND', 'POINT', 'BEGUN', 'STATE'], rows);
}

function stateOf(job: ShownJob): string {
  const { state, error, ended, cause } = job;
  if (state === 'running' || (state === 'queued' && error !== null)) return progressOf(job);
  if (error !== null) return `${state}: ${error.message}${error.hint === null ? '' : ` (${error.hint})`}`;
  return `${state}${ended === null ? '' : ` ${ended}`}${cause === 'schedule' ? ', by schedule' : ''}`;
}
