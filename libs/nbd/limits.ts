// Bounds of the NBD server and client. A client at a bound waits; one that is over it is refused or dropped.

export interface NbdLimits {
  connectionsMax: number;
  /** Of one connection: requests taken and not yet answered, and the bytes they hold. */
  requestsInFlightMax: number;
  bytesInFlightMax: number;
  /** Replies that the client has not taken yet. */
  unsentBytesMax: number;
  requestBytesMax: number;
  /** A write announced larger than this is not read to its end: the client is dropped. */
  refusedPayloadBytesMax: number;
  optionBytesMax: number;
  optionsMax: number;
  nameBytesMax: number;
  /** Of one connection: metadata contexts asked for beside `base:allocation`, and the length of one's name. */
  contextsMax: number;
  contextNameBytesMax: number;
  handshakeMsMax: number;
  /** Of one reply, in each of its contexts. */
  blockStatusExtentsMax: number;
}

export const nbdLimits: NbdLimits = {
  connectionsMax: 256,
  requestsInFlightMax: 1024,
  bytesInFlightMax: 64 << 20,
  unsentBytesMax: 8 << 20,
  requestBytesMax: 32 << 20,
  refusedPayloadBytesMax: 64 << 20,
  optionBytesMax: 64 << 10,
  optionsMax: 64,
  nameBytesMax: 4096,
  contextsMax: 8,
  contextNameBytesMax: 4096,
  handshakeMsMax: 10_000,
  blockStatusExtentsMax: 1024,
};

export interface NbdClientLimits {
  connectMsMax: number;
  /** From the connection to the open export. */
  handshakeMsMax: number;
  /** After so long without a byte the system asks whether the server's machine is there. */
  keepAliveMs: number;
  /** Of one connection: requests sent and not yet answered, and the bytes they carry either way. */
  requestsInFlightMax: number;
  bytesInFlightMax: number;
  /** Requests that wait for those limits; one more fails with ENOMEM. */
  requestsWaitingMax: number;
  /** Data of one request; what is longer is sent as several, as it is when the server takes less. */
  requestBytesMax: number;
  /** Zeroes and trims carry no data. */
  zeroesBytesMax: number;
  /** Of one answer to an option, and how many an option may have. */
  optionReplyBytesMax: number;
  optionRepliesMax: number;
  /** Of an error's message, and of block status in one context. */
  errorBytesMax: number;
  blockStatusBytesMax: number;
  /** Places of one read that are still to come, when a server sends its pieces out of order. */
  readGapsMax: number;
  /** How long a server may take to hang up after it was told goodbye. */
  closeMsMax: number;
}

export const nbdClientLimits: NbdClientLimits = {
  connectMsMax: 5000,
  handshakeMsMax: 30_000,
  keepAliveMs: 10_000,
  requestsInFlightMax: 1024,
  bytesInFlightMax: 64 << 20,
  requestsWaitingMax: 65_536,
  requestBytesMax: 32 << 20,
  zeroesBytesMax: 1 << 30,
  optionReplyBytesMax: 64 << 10,
  optionRepliesMax: 1024,
  errorBytesMax: 64 << 10,
  blockStatusBytesMax: 8 << 20,
  readGapsMax: 1024,
  closeMsMax: 3000,
};

/** Of one range that is read as a stream. */
export const readRangeLimits = { stepBytes: 1 << 20, stepsAheadMax: 4 } as const;

/** How guests are given way (read-pace.ts). */
export const readPaceLimits = {
  /** While it is quiet, and while guests are busy. */
  listenEveryMs: 1000,
  listenAgainMs: 250,
  probes: 10,
  probeRestMs: 4,
  /** Mean of the probes, to the best that was ever heard, above which guests are busy; within these bounds. */
  busyRatio: 3,
  busyMsMin: 0.5,
  busyMsMax: 4,
  /** Of the time, while they are: one read at a time, then a rest within these bounds. */
  busyShare: 0.15,
  restMsMin: 2,
  restMsMax: 100,
} as const;
