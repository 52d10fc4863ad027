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
} as const;
