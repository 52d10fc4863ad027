// Bounds of the cluster's registry, and the arithmetic of a lease.
import { MidmirrorError } from '@midmirror/basis';

export const limits = {
  leaseMsMin: 3000,
  leaseMsDefault: 5000,
  leaseMsMax: 60_000,
  /** What a take-over needs after the silence: the pool's claim settles (750 ms), the ring is read, the rest is slack. */
  takeMsMax: 2000,
  /** A look at the time at least so often. */
  tickMsMin: 20,
  tickMsMax: 250,
  /** Writes to the buckets under way at once, and volumes being taken. */
  writesInFlightMax: 64,
  takesInFlightMax: 64,
  /** A volume that can't be opened is given up, and tried again after so long, twice as long each time. */
  takeAgainMsMin: 500,
  takeAgainMsMax: 30_000,
  /** Of several who could take a volume each waits so long for each one that comes before it. */
  rankMs: 150,
  rankMsMax: 450,
  /** How long `create` waits for NATS and for this node's entry. */
  readyMsMax: 5000,
  /** How long `stop` waits for what it writes. */
  stopMsMax: 3000,
  /** Between attempts to read the buckets. */
  lookAgainMs: 250,
  nameCharactersMax: 128,
  volumeIdCharactersMax: 128,
  valueBytesMax: 4096,
  /** The buckets on the server's disk. */
  nodesBytesMax: 8 * 2 ** 20,
  ownersBytesMax: 64 * 2 ** 20,
  /** As for the bus's consumers: messages taken at once, and the server's signs of life. */
  pageMessages: 256,
  pullMsMax: 10_000,
  pullLifeMs: 2500,
  /** Complaints remembered, so that each is made once. */
  saidMax: 256,
  /** Entries of volumes that were deleted or released, in memory. */
  markersMax: 4096,
  /** How long the server keeps them, and how many too old ones are removed at each look. */
  markersKeptMs: 60 * 60_000,
  markersRemovedMax: 256,
} as const;

export interface LeaseTimes {
  /** A node whose entry has not changed for so long, while NATS was heard, is dead. */
  silenceMs: number;
  /** A node writes its entry this often. */
  renewMs: number;
  /** NATS not heard for so long: silence is counted anew, as it may have been the server's. */
  gapMsMax: number;
  tickMs: number;
}

/** Throws `bad-request` for a lease out of bounds. */
export function leaseTimes(leaseMs: number): LeaseTimes {
  if (!Number.isInteger(leaseMs) || leaseMs < limits.leaseMsMin || leaseMs > limits.leaseMsMax) {
    throw new MidmirrorError(
      'bad-request',
      `leaseMs: ${leaseMs} is out of bounds; give whole milliseconds from ${limits.leaseMsMin} to ${limits.leaseMsMax} (default ${limits.leaseMsDefault})`,
    );
  }
  const silenceMs = leaseMs - limits.takeMsMax;
  // A renewal and a gap fit into the silence with room to spare: a server that stops for as long as a gap may last
  // makes nobody dead.
  const renewMs = Math.floor(silenceMs / 5);
  const gapMsMax = Math.floor(silenceMs / 2);
  const tickMs = Math.min(Math.max(Math.floor(renewMs / 4), limits.tickMsMin), limits.tickMsMax);
  return { silenceMs, renewMs, gapMsMax, tickMs };
}
