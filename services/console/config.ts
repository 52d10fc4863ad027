// Bounds of the HTTP API.

export const limits = {
  bodyBytesMax: 64 << 10,
  pointsDefault: 200,
  pointsMax: 10_000,
  /** One answer of `bytes`. */
  readBytesMax: 1 << 30,
  readStepBytes: 1 << 20,
  changesDefault: 1000,
  historyDefault: 1000,
  answersMax: 10_000,
  progressEveryMs: 250,
} as const;
