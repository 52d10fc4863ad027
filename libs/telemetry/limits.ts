// Bounds of telemetry, each with its unit.

export const limits = {
  /** Series of one metric; further ones are left out and counted. */
  seriesPerMetricMax: 5000,
  /** A source of metrics that takes longer is left out: whoever looks waits 10 s at most. */
  sourceMs: 2000,
  /** A readiness check that takes longer is a reason not to be ready. */
  checkMs: 2000,
  /** How long stopping waits for what is still to be sent. */
  flushMs: 2000,
  /** Spans waiting to be sent; further ones are dropped. */
  spansQueuedMax: 2048,
  exportIntervalMsDefault: 60_000,
} as const;
