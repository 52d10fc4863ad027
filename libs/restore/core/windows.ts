// A plan cut into pieces, one read and one write each, and these into windows, which are flushed and checked together.
import type { PlannedRange } from './range-list.ts';

export interface WindowLimits {
  pieceBytesMax: number;
  windowBytesMax: number;
  windowPiecesMax: number;
}

/**
 * Windows of pieces in ascending order that cover what lies from `fromBytes` on. Pieces end at multiples of
 * `pieceBytesMax`, so that long ranges are read and written in step with caches and stripes.
 */
export function* windowsOf(
  ranges: Iterable<PlannedRange>,
  fromBytes: number,
  { pieceBytesMax, windowBytesMax, windowPiecesMax }: WindowLimits,
): Generator<PlannedRange[]> {
  let window: PlannedRange[] = [];
  let bytes = 0;
  for (const range of ranges) {
    const end = range.startBytes + range.lengthBytes;
    for (let at = Math.max(range.startBytes, fromBytes); at < end; ) {
      const next = Math.min(end, (Math.floor(at / pieceBytesMax) + 1) * pieceBytesMax);
      window.push({ startBytes: at, lengthBytes: next - at, zeroes: range.zeroes });
      bytes += next - at;
      at = next;
      if (bytes < windowBytesMax && window.length < windowPiecesMax) continue;
      yield window;
      window = [];
      bytes = 0;
    }
  }
  if (window.length > 0) yield window;
}

export function endOf(window: readonly PlannedRange[]): number {
  const last = window.at(-1)!;
  return last.startBytes + last.lengthBytes;
}
