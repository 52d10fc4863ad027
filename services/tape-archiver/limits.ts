// Bounds of the tape archiver.

export const limits = {
  /** Libraries that are worked on at one time; each has a process of its own. */
  librariesMax: 8,
  /** Jobs that wait for their turn or are under way, all libraries together. */
  jobsQueuedMax: 1000,
  /** Jobs that have ended and are still told of; older ones go. */
  jobsKept: 1000,
  /** While a library, a bucket or the appliance is away a job is tried again so often, waiting longer each time. */
  attemptsMax: 240,
  /** How often schedules are looked at, and pins that are no longer wanted. */
  tickMs: 2000,
  jobsListedMax: 1000,
  /** Archives of a planned restore are kept by retention for so long after it was planned, or one of them was read. */
  restoreHeldMs: 24 * 3_600_000,
  addressCharactersMax: 1024,
  barcodesMax: 1000,
  recipientsMax: 16,
  /** Characters of a recipient of age. */
  recipientCharactersMax: 2048,
} as const;
