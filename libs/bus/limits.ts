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
  deadLettersMax: 1000,
  /** How long to wait before readers that do not answer are asked again. */
  readersEveryMs: 250,

  // NATS only.
  /** A call of the server that takes longer has failed. */
  serverCallMsMax: 5000,
  /** Of looking why a server that demands TLS does not answer. */
  tlsProbeMsMax: 1000,
  /** Between attempts to connect. */
  connectEveryMs: 250,
  /** A server that is silent for two of these is gone. */
  pingEveryMs: 5000,
  /** How long JetStream knows a message by its id. */
  duplicateWindowMs: 10 * 60_000,
  /** A responder that works says so this often, and is gone when it is silent for so long. */
  lifeEveryMs: 1000,
  silenceMsMax: 5000,
  /** Of an answer: what goes in one message (a server takes 1 MiB unless it is told otherwise), and all of it. */
  answerPartBytesMax: 512 << 10,
  answerBytesMax: 16 << 20,
  /** A volume's owner may be changing: how long a request to it waits for one. */
  ownerMsMax: 2000,
  ownerEveryMs: 100,
  /** Rows of the outbox that the relay publishes at once, and published ones that it keeps to heal the stream. */
  outboxPageRows: 64,
  outboxKeptRows: 4096,
  /** How often the relay looks for what another process has left behind. */
  outboxLookMs: 5000,
  /** How often a wait for a position looks whether the messages up to it have been purged. */
  reachedLookMs: 250,
  /** A consumer asks again after so long, and holds the server for gone when it misses two signs of life. */
  pullMsMax: 10_000,
  pullLifeMs: 2500,
} as const;

/** What a stream may take on the server's disk, unless told otherwise. */
export const streamBytesMaxDefault = {
  journal: 2 ** 30,
  timeline: 512 * 2 ** 20,
  dead: 64 * 2 ** 20,
} as const;
