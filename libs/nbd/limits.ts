// Bounds of the NBD server. A client at a bound waits; one that is over it is refused or dropped.

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
