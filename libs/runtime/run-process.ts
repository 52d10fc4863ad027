// A process from its start to its end by a signal: what it says goes to standard output, what happens to standard
// error with the time, and what can't be mended ends it with status 1.
import { MidmirrorError, messageOf } from '@midmirror/basis';

export interface RunOptions {
  /** Said when a signal comes. */
  stopping: string;
  /** After the signal; then it is cut off, which is said. */
  stopMsMax: number;
  cutOff: string;
}

export interface Running {
  stop(): Promise<void>;
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function log(message: string): void {
  process.stderr.write(`${new Date().toISOString()} ${message}\n`);
}

export function fail(error: unknown): never {
  log(messageOf(error));
  if (error instanceof MidmirrorError && error.hint !== undefined) log(`  ${error.hint}`);
  if (!(error instanceof MidmirrorError)) log(String((error as Error).stack ?? ''));
  process.exit(1);
}

/** Ends the process when `start` rejects, or in order after SIGINT or SIGTERM, also while it starts. */
export function runProcess(start: (signal: AbortSignal) => Promise<Running>, options: RunOptions): void {
  const stopping = new AbortController();
  const running = start(stopping.signal);
  running.catch((error: unknown) => {
    if (!stopping.signal.aborted) fail(error);
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stopping.signal.aborted) return;
      stopping.abort();
      say(options.stopping);
      setTimeout(() => {
        log(options.cutOff);
        process.exit(0);
      }, options.stopMsMax).unref();
      void running
        .then(
          (started) => started.stop(),
          () => {}, // cut off while it was starting
        )
        .then(() => {
          say('Stopped.');
          process.exit(0);
        }, fail);
    });
  }
}
