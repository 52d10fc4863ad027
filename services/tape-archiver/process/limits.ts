// Bounds of a tape process, each with its unit.

export const limits = {
  /** Of one library, under way at one time; one more is refused. */
  callsMax: 64,
  /** Without work for so long it is ended. */
  idleMsMax: 60_000,
  /** How long it may take to end by itself; then it is killed. */
  closeMsMax: 10_000,
  /** How long a call that was cancelled may take to clear up; then the process is killed. */
  cancelMsMax: 60_000,
  /** Of one call. */
  progressEveryMs: 250,
  /** Of what it wrote to its standard error: kept to tell why it died. */
  lastWordsCharactersMax: 2000,
  /** 0: as other programs; 19: what nobody else wants. */
  niceness: 10,
  /** To the appliance. */
  connections: 4,
  /** How long the appliance may be away in the middle. */
  awayMsMax: 120_000,
  /** Of a read that listens for guests. */
  probeBytes: 4096,
  /** The unit of what is read and written: a cluster of qcow2. */
  clusterBytes: 64 << 10,
  /** What of a point and of an archive is compared at once. */
  pieceBytesMax: 1 << 20,
  /** The cartridge that a directory or bucket gets by itself when it has none. */
  firstBarcode: 'A00001',
  firstCartridgeBytes: 2 ** 40,
  /** Of readings that wait for their receiver or run. */
  readingsMax: 16,
  /** A receiver has so long to come and say its token, */
  receiverMsMax: 30_000,
  /** and may rest so long in the middle: its target may be slow. */
  receiverSilentMsMax: 600_000,
  /** Of one reading, that have not said the token yet. */
  receiversMax: 8,
} as const;
