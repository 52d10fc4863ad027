// A position in a JetStream stream, as one number that never goes back although the stream may be lost and made
// anew, its sequence numbers with it: when the stream was made (milliseconds since 2026, times 8192) plus the
// message's sequence number. No stream takes 8192 messages a millisecond, so what comes after a new beginning is
// greater than all before. Exact until the year 2060.

const EPOCH_MS = Date.UTC(2026, 0, 1);
const PER_MS = 8192;

/** The position before the first message of a stream. `created` is what the server says of it. */
export function basePosition(created: string): number {
  return Math.max(0, Date.parse(created) - EPOCH_MS) * PER_MS;
}

/**
 * After which sequence number a reader goes on that stands at `position`. `lost`: it has seen more than the stream
 * has, which was made anew, or has lost its end (a server that had not flushed it lost power).
 */
export function resumeAfter(
  position: number,
  base: number,
  lastSequence: number,
): { sequence: number; lost: boolean } {
  if (position < base) return { sequence: 0, lost: position > 0 };
  const sequence = position - base;
  return sequence <= lastSequence ? { sequence, lost: false } : { sequence: lastSequence, lost: true };
}
