// Bounds of the HTTP API.

export const limits = {
  bodyBytesMax: 64 << 10,
  pointsDefault: 200,
  pointsMax: 10_000,
  /** One answer of `bytes`. */
  readBytesMax: 1 << 30,
  /** Answers of `bytes` at one time: each has a connection to the NBD server, which guests need too. */
  readsMax: 32,
  /** Of one answer of `digests`: what is read, and how many at one time; each has a connection too. */
  digestReadBytesMax: 1 << 30,
  digestBlockBytesMin: 4 << 10,
  digestBlockBytesMax: 4 << 20,
  digestsMax: 8,
  gapReasonCharactersMax: 200,
  /** A point that is gone when its bytes are wanted is asked for again. */
  readTriesMax: 3,
  /** Volumes that a list asks about at one time: one whose owner is away takes some seconds. */
  volumesAskedMax: 16,
  changesDefault: 1000,
  historyDefault: 1000,
  answersMax: 10_000,
  progressEveryMs: 250,
  tapesDefault: 100,
  tapesMax: 10_000,
  /** Archives that are read at one time: each takes a drive, and a tape process has no more of them. */
  tapeReadsMax: 4,
  tapeConnectMsMax: 10_000,
  tapeKeepAliveMs: 30_000,
  tapeTextCharactersMax: 4096,
  zstdLevelMax: 19,
  recipientsMax: 64,
  barcodesMax: 1000,
} as const;
