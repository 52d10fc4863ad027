// Bounds of ingest, each with its unit.

export const limits = {
  /** How often the head maps are held against their limit, and the claims are looked at of volumes that rest. */
  lookMs: 1000,
  /** Times that a look into the runs begins again because they were replaced under it. */
  readTriesMax: 8,
  /** Looks into the same runs after which the catalogue is asked for fewer. */
  lookUpsPerRenewal: 1000,
  /** How often a cluster's ingest looks for volumes that others have made. */
  namesLookMs: 2000,
  /** How often a client that waits for a volume's new owner looks for it; beyond the lease it waits so much longer. */
  ownerLookMs: 50,
  takeoverMsMax: 5000,
  /** Addresses of who is connected to a disk, of those that are told. */
  peersToldMax: 8,
  /** What becomes durable is published at once, and what follows after such a rest: with a bus that takes time of this
   *  process, and with one that takes that of others. */
  publishRestMs: 100,
  publishRestMsCluster: 25,
} as const;
