// Carries out a walk over mirrors: asks the core which one is next, probes it, keeps the state after each verdict.
import type { Verdict } from '../core/verdict.ts';
import { nextOfWalk, noteWalk, type WalkState, type WalkStep } from '../core/walk.ts';

export interface WalkPorts {
  /** The mirrors that there are now: write sequences, oldest first. */
  mirrors(): Promise<readonly number[]>;
  probe(seq: number, signal: AbortSignal): Promise<Verdict>;
  /** Durable when done. */
  keep(state: WalkState): Promise<void>;
}

/** `end` null: it was stopped. A walk that has looked at all there is can be run again when there are more. */
export async function runWalk(
  begun: WalkState,
  { signal, mirrors, probe, keep }: WalkPorts & { signal: AbortSignal },
): Promise<{ state: WalkState; end: Exclude<WalkStep, { kind: 'probe' }> | null }> {
  let state = begun;
  while (!signal.aborted) {
    const step = nextOfWalk(state, await mirrors());
    if (step.kind !== 'probe') return { state, end: step };
    const verdict = await probe(step.seq, signal);
    // What a probe says that was stopped says nothing of the mirror.
    if (signal.aborted) break;
    state = noteWalk(state, step.seq, verdict);
    await keep(state);
  }
  return { state, end: null };
}
