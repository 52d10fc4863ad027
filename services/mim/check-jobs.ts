// Walks and searches of the monitor, waited for. They belong to the appliance: who waits may go away.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError } from '@midmirror/basis';
import { limits, whileAway } from '@midmirror/restore';
import { problemError } from '@midmirror/api';
import type { ShownPoint } from './output.ts';
import { toItsEnd } from './restore-options.ts';
import type { Session } from './session.ts';

export interface ShownCheckJob {
  job: string;
  task: 'certify' | 'bisect';
  volume: string;
  check: string;
  status: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  created: string;
  ended: string | null;
  probes: number;
  probesMax: number | null;
  error: { code: string; message: string; hint: string | null } | null;
  end: {
    kind: 'certified' | 'condemned' | 'cannot-tell' | 'found' | 'range' | 'nothing-bad' | 'nothing-good';
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

/** Until it is done. Rejects with what it failed with. Ctrl-C leaves it running, and says so. */
export async function waitForCheck(session: Session, begun: ShownCheckJob): Promise<ShownCheckJob> {
  const { job: id } = begun;
  const words = `Job ${id} goes on: \`mim check jobs\` shows it, \`mim check cancel ${id}\` ends it.`;
  let job = begun;
  await toItsEnd(session, words, async () => {
    try {
      while (job.status === 'queued' || job.status === 'running') {
        const most = job.probesMax === null ? '' : ` of ${job.probesMax} at most`;
        session.progress(`${job.task} of ${job.volume} by ${job.check}: ${job.probes} probes${most}`);
        await pause(ASK_EVERY_MS);
        job = await whileAway(
          async () => (await session.api.json<{ job: ShownCheckJob }>('GET', checkJobPath(id))).job,
          {
            awayMsMax: limits.awaySecondsDefault * 1000,
            onAway: (reason) => session.note(`waits for the appliance: ${reason}`),
          },
        );
      }
    } finally {
      session.progress('');
    }
    if (job.status === 'done') return;
    if (job.error !== null) {
      const { code, message, hint } = job.error;
      throw problemError({ code, detail: message, ...(hint === null ? {} : { hint }) });
    }
    throw new MidmirrorError('conflict', `job ${id} was ${job.status}`);
  });
  return job;
}
