// How much of the process's time merging may take: half of what others leave of the event loop, and where they leave
// nothing a small share all the same, so that tiers never fall behind for good. Pure.
import { limits } from './limits.ts';

/**
 * How long merging rests after a slice.
 * @param workedMs what the slice took, waiting for the catalogue included
 * @param busyShare how busy others kept the event loop of late, 0 to 1
 */
export function restAfterSliceMs(workedMs: number, busyShare: number): number {
  const share = Math.max(limits.mergeShareMin, (1 - busyShare) * limits.mergeShareOfIdle);
  return Math.min(limits.mergeRestMsMax, Math.max(limits.mergeRestMsMin, workedMs * (1 / share - 1)));
}
