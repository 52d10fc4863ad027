// Bounds of the replicator, each with its unit.

export const limits = {
  /** The map of a volume: its regions are as small as this many of them allow, and no smaller than that. */
  regionsMax: 2 ** 18,
  regionBytesMin: 64 << 10,
  /** Intent is noted for so much at once: a fresh region costs a sync of the map. A power of two. */
  intentGroupBytes: 4 << 20,
  /** How often intent that has become needless is taken back; what was written since the last time keeps it. */
  clearEveryMs: 5000,
  storeAgainMs: 1000,

  /** Writes on their way to the appliance: data (`queueBytes`) and number. */
  queueBytes: 64 << 20,
  queueBytesMin: 4 << 20,
  queueBytesMax: 2 ** 32,
  queueEntriesMax: 65_536,
  /** Of the queue, what copies may fill: what a guest's write has to wait behind, in sync mode for its answer. */
  copiedBytesMax: 16 << 20,
  copiedBytesMaxSync: 4 << 20,
  /** Sent and not yet answered: below what either end takes, so that the link can be probed behind them. */
  sentBytesMax: 16 << 20,
  sentEntriesMax: 512,
  /** The appliance is told to flush at least this often while there is something to. */
  flushEveryMs: 1000,

  /** Copying: what is compared by one question, in blocks of what size, and how many questions are ahead. */
  windowBytesMax: 16 << 20,
  windowsMax: 4,
  blockBytes: 64 << 10,
  /** Blocks of short windows: what differs there is mostly a few writes. */
  fineBlockBytes: 4 << 10,
  fineWindowBytesMax: 1 << 20,
  /** What is read, compared and queued while guests' writes to it are held. */
  pieceBytesMax: 1 << 20,
  copyAgainMs: 1000,
  searchAgainMs: 20,
  /** Over which the rate of copying is told. */
  rateOverMs: 10_000,

  /** A guest's write of up to so much is done at once, as long as the primary is quick. */
  quickWriteBytesMax: 128 << 10,
  quickWriteMsMax: 5,
  hopsAfterSlow: 64,

  connectAgainMsMin: 100,
  connectAgainMsMax: 10_000,
  /** A connection that has held for so long ends the series of failures. */
  steadyMs: 10_000,
  /** After so long without an answer the appliance is asked for one, and is away when none comes. */
  probeAfterMs: 2000,
  probeMsMax: 8000,
  /** Of one question to the appliance's API. */
  apiMsMax: 15_000,
  apiAnswerBytesMax: 16 << 20,

  tickMs: 50,
  holdMsMax: 5000,
  /** At one time, of the control socket's clients. */
  holdsMax: 16,
  controlBodyBytesMax: 64 << 10,
  /** Of what the system takes, without its terminator. */
  socketPathBytesMax: 107,
  marksWaitingMax: 64,
  stopMsMax: 8000,
  /** Of that, what guests' requests in flight may take. */
  nbdStopMsMax: 2000,
  /** Taken off the time from which moments lack writes, for the way to the appliance. */
  gapMarginMs: 1000,
} as const;

/** Of the core: tests have their own, to come to its bounds. */
export type Limits = { readonly [K in keyof typeof limits]: number };
