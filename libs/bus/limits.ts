// Bounds of the bus.

export const limits = {
  /** Messages that a consumer takes from its stream at once (of at most 512 KiB each). */
  pageMessages: 16,
  /** A handler that fails is tried again this often, waiting longer each time; then the message is a dead letter. */
  attemptsMax: 5,
  retryMsMin: 20,
  retryMsMax: 2000,
  requestsInFlightMax: 1024,
  requestMsDefault: 30_000,
} as const;
