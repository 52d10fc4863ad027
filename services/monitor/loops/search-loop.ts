// Carries out a search for the first bad write: asks the core what to probe, probes as many at once as may be, keeps the state
// after each verdict. Can be stopped at any time and goes on from the state that was kept.
import { type BisectEnd, type BisectState, nextProbes, noteVerdict } from '../core/bisect.ts';
import type { Verdict } from '../core/verdict.ts';

export interface SearchPorts {
  /** Rejects only when nothing can be said of any moment now; the search then ends with that error, its state kept. */
  probe(seq: number, signal: AbortSignal): Promise<Verdict>;
  /** Durable when done. */
  keep(state: BisectState): Promise<void>;
}

export interface SearchOptions extends SearchPorts {
  jobs: number;
  signal: AbortSignal;
}

interface Running {
  done: Promise<Told>;
  stop: AbortController;
}

type Told = { seq: number; verdict: Verdict } | { seq: number; error: unknown };

/** `end` null: it was stopped. */
export async function runSearch(
  begun: BisectState,
  { jobs, signal, probe, keep }: SearchOptions,
): Promise<{ state: BisectState; end: BisectEnd | null }> {
  let state = begun;
  const running = new Map<number, Running>();
  /** They are ending, and take room until they have. */
  const stopped = new Set<Promise<null>>();
  const stop = (seq: number): void => {
    const { done, stop: controller } = running.get(seq)!;
    running.delete(seq);
    controller.abort();
    const ended = done.then(() => {
      stopped.delete(ended);
      return null;
    });
    stopped.add(ended);
  };
  try {
    while (!signal.aborted) {
      const step = nextProbes(state, [...running.keys()], jobs);
      for (const seq of step.stop) stop(seq);
      if (step.end !== null) return { state, end: step.end };
      const room = Math.max(0, jobs - running.size - stopped.size);
      for (const seq of step.start.slice(0, room)) running.set(seq, begin(seq, probe, signal));
      const told = await Promise.race([...[...running.values()].map(({ done }) => done), ...stopped]);
      if (told === null) continue;
      running.delete(told.seq);
      // What a probe says that was stopped says nothing of the moment.
      if (signal.aborted) break;
      if ('error' in told) throw told.error;
      state = noteVerdict(state, told.seq, told.verdict);
      await keep(state);
    }
    return { state, end: null };
  } finally {
    for (const seq of [...running.keys()]) stop(seq);
    await Promise.all(stopped);
  }
}

function begin(seq: number, probe: SearchPorts['probe'], signal: AbortSignal): Running {
  const stop = new AbortController();
  const done = probe(seq, AbortSignal.any([signal, stop.signal])).then(
    (verdict) => ({ seq, verdict }),
    (error: unknown) => ({ seq, error }),
  );
  return { done, stop };
}
