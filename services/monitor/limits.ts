// Bounds of the monitor, each with its unit.

export const bisectLimits = {
  /** Between the last good and the first bad moment: so many that can't be told, and the search says what it knows. */
  cannotTellMax: 64,
  jobsMax: 16,
} as const;

export const walkLimits = {
  /** Moments that could not be told, of those that are kept by name; all are counted. */
  cannotTellKept: 100,
} as const;

/** What one run of a check may use. At a limit it is stopped, and can't tell. */
export interface CheckLimits {
  timeMsMax: number;
  /** Of all its processes together where there are control groups, else of each; with the files of its page cache. */
  memoryBytesMax: number;
  processesMax: number;
  /** What it may say at all, and how much of it is kept with the verdict: half from its beginning, half its end. */
  outputBytesMax: number;
  outputBytesKept: number;
  /** In its own directory. */
  scratchBytesMax: number;
  scratchFilesMax: number;
}

export const checkLimits: CheckLimits = {
  timeMsMax: 10 * 60_000,
  memoryBytesMax: 1 << 30,
  processesMax: 256,
  outputBytesMax: 64 << 20,
  outputBytesKept: 64 << 10,
  scratchBytesMax: 1 << 30,
  scratchFilesMax: 100_000,
};

/** Of a check that looks at files: where nothing can be mounted they are copied to its directory. */
export const filesLimits = {
  scratchBytesMax: 64 * 2 ** 30,
  scratchFilesMax: 1_000_000,
} as const;

/** Of a check that looks at the disk as a file: without FUSE that is a copy, as far as it has data. */
export const diskLimits = { scratchBytesMax: 2 ** 40 } as const;

export const runnerLimits = {
  /** Of a check's processes, from 0 to 19: what the machine has for them when it is busy. */
  niceness: 10,
  /** How often a run's directory is looked at; and its processes too, where no control group counts for us. */
  watchMs: 500,
  watchUncountedMs: 100,
  /** After a kill: how long until it is sent again, and how often. Then what is left is told. */
  killAgainMs: 20,
  killTimesMax: 250,
  /** An output that a stray process holds open is waited for so long after the check's end. */
  outputEndMsMax: 2000,
  /** Of one question to the machine about what it has. */
  probeMsMax: 10_000,
  /** So long what a program has said of its version is not asked for again: a search makes many probes. */
  versionAgeMsMax: 10_000,
  /** Of what the system takes, without its terminator. */
  socketPathBytesMax: 107,
  /** Of what a check has read, as told with its verdict. */
  readRangesMax: 4096,
  doorwayCloseMsMax: 2000,
  /** A check that has taken more than the one is stopped when less than the other is left: the journal may lie there too. */
  scratchBytesSmall: 64 << 20,
  scratchFreeBytesMin: 1 << 30,
  /** Of a read that listens for guests. */
  paceProbeBytes: 4096,
  /** By one check to its own copy of a moment. */
  writtenBytesMax: 64 * 2 ** 30,
} as const;

/** Of what people give a check. */
export const settingsLimits = {
  listMax: 1000,
  textCharactersMax: 16_384,
} as const;

export interface EntropyLimits {
  /** What is judged as one: a page of most file systems. */
  blockBytes: number;
  /** Blocks that are followed, a byte each; 2 GiB of them are read once. Of a larger disk one of every so many. */
  blocksMax: number;
  /** A quick encryption and a slow one. */
  horizonsMs: readonly number[];
  /**
   * Condemned from here on, all four: bytes; share of the plain data; times what was the most before; share of what is
   * newly dense that took the place of plain data.
   */
  turnedBytesMin: number;
  turnedShareMin: number;
  unusualFactor: number;
  inPlaceShareMin: number;
  /** Newly dense data that is less even than this is compressed, not encrypted: it has to be a larger share. */
  chiSquareRandomMax: number;
  compressedShareMin: number;
  /** One block counts for no more: some few odd ones must not hide the others. */
  chiSquareCounted: number;
  /** After so long half of what was usual is. */
  usualHalfLifeMs: number;
}

export const entropyLimits: EntropyLimits = {
  blockBytes: 4096,
  blocksMax: 2 ** 19,
  horizonsMs: [10 * 60_000, 24 * 3_600_000],
  turnedBytesMin: 1 << 20,
  turnedShareMin: 0.03,
  unusualFactor: 3,
  inPlaceShareMin: 0.45,
  chiSquareRandomMax: 262,
  compressedShareMin: 0.3,
  chiSquareCounted: 400,
  usualHalfLifeMs: 30 * 86_400_000,
};

/** Of what is read to be judged by its entropy. */
export const feedLimits = {
  readBytesMax: 256 << 10,
  readsAheadMax: 8,
  /** Of a check: a step in so long a time, and those that are shorter are one. */
  stepMs: 5 * 60_000,
  /** Of a watch, in the service: a core's eighth or so. A read counts as so much at least: small ones cost as many turns. */
  bytesPerSecondMax: 64 << 20,
  readCostBytes: 64 << 10,
  /** Blocks of one look, those first that were written first; then it is judged. */
  blocksPerLookMax: 4096,
  /** Between two looks at what was written, each of which opens a point. */
  lookEveryMs: 50,
  /** While nothing is wrong, how often that is stored; and not without a write. */
  goodEveryMs: 10 * 60_000,
} as const;

/** Of the service. */
export const monitorLimits = {
  /** Checks that run at one time, all volumes together. */
  slotsMax: 4,
  /** Walks and searches at one time; the others wait. */
  jobsRunningMax: 8,
  jobsQueuedMax: 1000,
  /** Of retroactive walks: at one time, and all that have not ended. */
  retroactiveRunningMax: 2,
  retroactiveQueuedMax: 100,
  /** How often it is looked whether programs and signatures are others; and how long after one that failed it is walked again. */
  retroactiveLookMs: 5 * 60_000,
  retroactiveAgainMs: 3_600_000,
  /** Jobs that have ended and are still told of. */
  jobsKept: 1000,
  jobsListedMax: 1000,
  checksMax: 100,
  nameCharactersMax: 63,
  settingsCharactersMax: 64 << 10,
  /** How often schedules are looked at. */
  tickMs: 5000,
  everyMsMin: 10_000,
  nthMax: 10_000,
  /** Earlier verdicts that a search begins with. */
  earlierMax: 1000,
  /** Of those on either side of a moment, among which a probe looks for some that may hold. */
  nearestMax: 32,
  /** Writes that are told on either side of the first bad one. */
  neighbours: 2,
  /** Extents of each of them. */
  extentsMax: 32,
  /** A probe whose appliance is away is tried again so often. */
  attemptsMax: 60,
} as const;

/** Verdicts of one check of one volume. */
export const verdictLimits = {
  keptMax: 10_000,
  /** With what was said, and what was read: hundreds of KiB at most, each. */
  wholeMax: 1000,
  /** Of a check that judges writes: those by which others stand. */
  standingMax: 1000,
} as const;

export interface WebhookLimits {
  /** Of one request, until its answer. */
  answerMsMax: number;
  /** Until the next attempt: twice as long each time. There is no last one. */
  againMsMin: number;
  againMsMax: number;
  /** Events that are not told, until the position is stored. */
  passedOverMax: number;
  reasonCharactersMax: number;
}

export const webhookLimits: WebhookLimits = {
  answerMsMax: 10_000,
  againMsMin: 1000,
  againMsMax: 60_000,
  passedOverMax: 100,
  reasonCharactersMax: 2000,
};

/** Of volumes that are put back by themselves. */
export interface PutBackLimits {
  /** Under way or waiting for somebody to go, of all volumes; the others wait for those. */
  jobsMax: number;
  /** That write at one time. */
  movingMax: number;
  /** How often it is looked whether whoever it waits for has gone. */
  lookMs: number;
  /** Nobody was connected for so long. */
  quietMs: number;
  /** So long it waits, for guests or for the appliance; then it is not put back, and a clone is made. */
  waitMsMax: number;
  /** In the middle; then all is opened anew. */
  awayMsMax: number;
  /** Marks of one restore, when others write between a mark and its first byte. */
  marksMax: number;
}

export const putBackLimits: PutBackLimits = {
  jobsMax: 64,
  movingMax: 2,
  lookMs: 1000,
  quietMs: 5000,
  waitMsMax: 24 * 3_600_000,
  awayMsMax: 5000,
  marksMax: 100,
};
