// Bounds of a service's process.

export const limits = {
  /** From the signal to the end of the process. */
  stopMsMax: 9000,
  /** What is under way on NBD connections may take this much of it. */
  nbdStopMsMax: 3000,
  /** How often a process that starts tries again to reach what it needs. */
  startEveryMs: 250,
  /** How long a process that starts waits for NATS before it goes on without. */
  busWaitMs: 2000,
  /** A server that does not answer a look of /readyz within this time is away; less than a check may take. */
  serverAnswerMs: 1000,
} as const;
