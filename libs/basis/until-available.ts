// Does something again and again while what it needs is away, waiting longer each time up to a bound.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError, messageOf } from './error.ts';

const AGAIN_MS_MIN = 100;
const AGAIN_MS_MAX = 5000;

export function isUnavailable(error: unknown): boolean {
  return error instanceof MidmirrorError && error.code === 'unavailable';
}

/** How long to wait after so many failures. */
export function againMs(failures: number): number {
  return Math.min(AGAIN_MS_MIN * 2 ** Math.min(failures - 1, 16), AGAIN_MS_MAX);
}

/** Tells a reason when it is another than before: not each second the same. */
export class ReasonLog {
  readonly #log: (message: string) => void;
  #last: string | null = null;

  constructor(log: (message: string) => void) {
    this.#log = log;
  }

  say(message: string): void {
    if (message === this.#last) return;
    this.#last = message;
    this.#log(message);
  }

  /** What it waited for has come. */
  over(): void {
    this.#last = null;
  }
}

/**
 * What `act` gives once it no longer fails as `unavailable`. Rejects with any other error of it, and with `unavailable`
 * once `signal` is aborted. `what` begins the lines of the log: each reason once.
 */
export async function untilAvailable<T>(
  act: () => Promise<T>,
  { what, log, signal }: { what: string; log: (message: string) => void; signal: AbortSignal },
): Promise<T> {
  const reasons = new ReasonLog(log);
  for (let failures = 1; ; failures += 1) {
    try {
      return await unlessAborted(act(), signal);
    } catch (error) {
      if (signal.aborted || !isUnavailable(error)) throw error;
      reasons.say(`${what} waits: ${messageOf(error)}`);
    }
    await pause(againMs(failures), undefined, { signal }).catch(() => {});
  }
}

async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(new MidmirrorError('unavailable', 'the service is stopping'));
  signal.addEventListener('abort', abort);
  if (signal.aborted) abort();
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
    aborted.promise.catch(() => {});
  }
}
