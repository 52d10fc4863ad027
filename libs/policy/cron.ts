// Times of day as cron expressions, in UTC.
import { Cron } from 'croner';

const CHARACTERS_MAX = 200;
const NS_PER_MS = 1_000_000n;

export function isCron(text: unknown): text is string {
  if (typeof text !== 'string' || text.length > CHARACTERS_MAX) return false;
  try {
    new Cron(text, { paused: true }).stop();
    return true;
  } catch {
    return false;
  }
}

/** The first time after `afterNs` that the expression names; null: it names none any more (30 February). */
export function nextRunNs(cron: string, afterNs: bigint): bigint | null {
  const next = new Cron(cron, { paused: true, timezone: 'UTC' }).nextRun(
    new Date(Number(afterNs / NS_PER_MS)),
  );
  return next === null ? null : BigInt(next.getTime()) * NS_PER_MS;
}
