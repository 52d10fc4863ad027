// Work that belongs to the appliance, waited for: who waits may go away, and so may the appliance for a while.
import { setTimeout as pause } from 'node:timers/promises';
import { problemError } from '@midmirror/api';
import { MidmirrorError } from '@midmirror/basis';
import { limits, whileAway } from '@midmirror/restore';
import { toItsEnd } from './restore-options.ts';
import type { Session } from './session.ts';

interface AwaitedJob {
  job: string;
  error: { code: string; message: string; hint: string | null } | null;
}

interface Awaiting<Job> {
  /** Of the API: answers `{ job }`. */
  path: string;
  /** Those of the command line that have `jobs` and `cancel`, as "mim tape". */
  commands: string;
  everyMs: number;
  stateOf(job: Job): 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  /** Each time that it is asked for and has not ended. */
  tell(job: Job): void;
}

/** Until it is done. Rejects with what it failed with. Ctrl-C leaves it running, and says so. */
export async function waitForEnd<Job extends AwaitedJob>(
  session: Session,
  begun: Job,
  { path, commands, everyMs, stateOf, tell }: Awaiting<Job>,
): Promise<Job> {
  const { job: id } = begun;
  const words = `Job ${id} goes on: \`${commands} jobs\` shows it, \`${commands} cancel ${id}\` ends it.`;
  let job = begun;
  await toItsEnd(session, words, async () => {
    try {
      while (stateOf(job) === 'queued' || stateOf(job) === 'running') {
        tell(job);
        await pause(everyMs);
        job = await whileAway(async () => (await session.api.json<{ job: Job }>('GET', path)).job, {
          awayMsMax: limits.awaySecondsDefault * 1000,
          onAway: (reason) => session.note(`waits for the appliance: ${reason}`),
        });
      }
    } finally {
      session.progress('');
    }
    if (stateOf(job) === 'done') return;
    if (job.error !== null) {
      const { code, message, hint } = job.error;
      throw problemError({ code, detail: message, ...(hint === null ? {} : { hint }) });
    }
    throw new MidmirrorError('conflict', `job ${id} was ${stateOf(job)}`);
  });
  return job;
}
