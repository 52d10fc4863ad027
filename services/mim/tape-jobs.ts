// Jobs of tapes: shown, and waited for. They belong to the appliance: who waits may go away.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError, printBytes } from '@midmirror/basis';
import { limits, whileAway } from '@midmirror/restore';
import { problemError } from '@midmirror/api';
import { printSeconds, type ShownPoint, table } from './output.ts';
import { toItsEnd } from './restore-options.ts';
import type { Session } from './session.ts';

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

/** Until it is done. Rejects with what it failed with. Ctrl-C leaves it running, and says so. */
export async function waitForJob(session: Session, begun: ShownJob): Promise<ShownJob> {
  const { job: id } = begun;
  const words = `Job ${id} goes on: \`mim tape jobs\` shows it, \`mim tape cancel ${id}\` ends it.`;
  let job = begun;
  await toItsEnd(session, words, async () => {
    let told = Number.NEGATIVE_INFINITY;
    try {
      while (job.state === 'queued' || job.state === 'running') {
        if (!session.json || performance.now() - told >= TELL_EVERY_MS) {
          told = performance.now();
          tell(session, job);
        }
        await pause(ASK_EVERY_MS);
        job = await whileAway(
          async () => (await session.api.json<{ job: ShownJob }>('GET', jobPath(id))).job,
          {
            awayMsMax: limits.awaySecondsDefault * 1000,
            onAway: (reason) => session.note(`waits for the appliance: ${reason}`),
          },
        );
      }
    } finally {
      session.progress('');
    }
    if (job.state === 'done') return;
    if (job.error !== null) {
      const { code, message, hint } = job.error;
      throw problemError({ code, detail: message, ...(hint === null ? {} : { hint }) });
    }
    throw new MidmirrorError('conflict', `job ${id} was ${job.state}`);
  });
  return job;
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
