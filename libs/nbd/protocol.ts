// The numbers of the NBD protocol (doc/proto.md of the NetworkBlockDevice project).

export const Handshake = {
  magic: 0x4e42444d41474943n,
  optionMagic: 0x49484156454f5054n,
  optionReplyMagic: 0x3e889045565a9n,
  flagFixedNewstyle: 1,
  flagNoZeroes: 2,
} as const;

export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const OptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errTlsRequired: 0x80000005,
  errUnknown: 0x80000006,
  errShutdown: 0x80000007,
  errTooBig: 0x80000009,
} as const;

export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const TransmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
  sendDf: 128,
  canMultiConn: 256,
} as const;

export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const CommandFlag = { fua: 1, noHole: 2, df: 4, reqOne: 8 } as const;

export const requestMagic = 0x25609513;
export const simpleReplyMagic = 0x67446698;
export const structuredReplyMagic = 0x668e33ef;
export const requestHeaderBytes = 28;

export const Chunk = {
  done: 1,
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
  /** Of every type of error, those not known here too. */
  errorBit: 0x8000,
} as const;
export const Status = { hole: 1, zero: 2 } as const;
export const BASE_ALLOCATION = 'base:allocation';
/** The id under which `base:allocation` is served; others have the ids after it, in the order of their chunks. */
export const allocationContextId = 1;
