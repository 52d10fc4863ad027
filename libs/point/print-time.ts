// Times and distances for people: always with a zone, never more digits than mean something.
import { msOf } from '@midmirror/basis';

/** RFC 3339 in UTC; as many fraction digits as the time has, in threes. */
export function printTime(timeNs: bigint): string {
  const fraction = (timeNs % 1_000_000_000n)
    .toString()
    .padStart(9, '0')
    .replace(/(?:000){1,3}$/, '');
  const seconds = new Date(msOf(timeNs)).toISOString().slice(0, 19);
  return fraction === '' ? `${seconds}Z` : `${seconds}.${fraction}Z`;
}

/** `exactly`, `12 ms before`, `3.2 s before`, `2 h 5 min before`, … */
export function printDistance(distanceMs: number): string {
  const side = distanceMs < 0 ? 'before' : 'after';
  const ms = Math.abs(distanceMs);
  if (ms < 0.001) return 'exactly';
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(2) : Math.round(ms)} ms ${side}`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s ${side}`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${Math.round((ms % 60_000) / 1000)} s ${side}`;
  const hours = Math.floor(minutes / 60);
  return hours < 48
    ? `${hours} h ${minutes % 60} min ${side}`
    : `${Math.floor(hours / 24)} d ${hours % 24} h ${side}`;
}
