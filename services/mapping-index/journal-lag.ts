// How long the index took to learn of each write, counted by write. Both clocks' difference is in it when the owner
// of the volume runs on another machine.
import { packedBatches } from '@midmirror/journal';
import { Histogram } from '@midmirror/telemetry';

export class JournalLag {
  /** From the time of a write, which is taken before it is stored and answered. */
  readonly sinceStored = new Histogram();
  /** From when the first of the message's writes became durable: for the others it was less. */
  readonly sinceDurable = new Histogram();

  /** Batches that were not known before; `durableNs` null: nobody knows since when. */
  handled(batches: Uint8Array, durableNs: bigint | null, nowNs: bigint): void {
    let writes = 0;
    for (const { batch } of packedBatches(batches)) {
      writes += batch.writeCount;
      this.sinceStored.record(secondsBetween(batch.timeNs, nowNs), batch.writeCount);
    }
    if (durableNs !== null) this.sinceDurable.record(secondsBetween(durableNs, nowNs), writes);
  }
}

/** Not below 0, whatever the clocks say. */
function secondsBetween(fromNs: bigint, toNs: bigint): number {
  return Math.max(0, Number(toNs - fromNs) / 1e9);
}
