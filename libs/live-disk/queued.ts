// What waits in a journal: commands and marks to be stored, in order, and those that wait for stable storage.
import type { MidmirrorError } from '@midmirror/basis';
import type { WriteCommand } from '@midmirror/block-device';

/** A mark waits in the same queue as the writes, so that its place among them is exact. */
export interface QueuedMark {
  kind: 'mark';
  bytes: Uint8Array;
  resolve(point: { seq: number; timeNs: bigint }): void;
  reject(error: MidmirrorError): void;
}

export type Queued = WriteCommand | QueuedMark;

export interface CommitWaiter {
  seq: number;
  command: WriteCommand | null;
  done: ((error: MidmirrorError | null) => void) | null;
}
