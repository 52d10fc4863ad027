// So many bytes a second and no more.
import { setTimeout as pause } from 'node:timers/promises';
import type { Pace } from './feed.ts';

export function paceOf(bytesPerSecond: number, signal: AbortSignal): Pace {
  let dueMs = 0;
  return async (bytes) => {
    const nowMs = performance.now();
    dueMs = Math.max(dueMs, nowMs) + (bytes / bytesPerSecond) * 1000;
    // Timers are not for less.
    if (dueMs - nowMs > 5) await pause(dueMs - nowMs, undefined, { signal });
  };
}
