// Time is a port: cores and loops receive it, only main.ts takes the machine's clock.

/** Nanoseconds since the Unix epoch. */
export interface Clock {
  nowNs(): bigint;
}

/** The machine's clock; sub-millisecond digits come from the performance counter and follow clock steps. */
export function wallClock(): Clock {
  let originMs = performance.timeOrigin;
  return {
    nowNs() {
      const coarseMs = Date.now();
      let fineMs = originMs + performance.now();
      if (Math.abs(fineMs - coarseMs) > 2) {
        originMs += coarseMs - fineMs;
        fineMs = coarseMs;
      }
      return BigInt(Math.floor(fineMs * 1000)) * 1000n;
    },
  };
}

/** Never equal, never backwards: the later of the clock and one nanosecond after `lastNs`. */
export function monotonicNs(clock: Clock, lastNs: bigint): bigint {
  const nowNs = clock.nowNs();
  return nowNs > lastNs ? nowNs : lastNs + 1n;
}

/** Whole milliseconds since the Unix epoch. */
export function msOf(ns: bigint): number {
  return Number(ns / 1_000_000n);
}
