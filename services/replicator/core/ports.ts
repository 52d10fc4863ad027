// What the core asks of the world. Every `done` is called once, never before the call has returned.
import type { WriteCommand } from '@midmirror/block-device';
import type { CopierPorts } from './copier.ts';
import type { Mode } from './modes.ts';

export interface Gap {
  number: number;
  fromTime: string;
}

export interface MarkPoint {
  seq: number;
  timeNs: bigint;
}

/** What was found out about the appliance and its volume when the connection was made. */
export interface Met {
  gap: Gap | null;
}

export interface ReplicationPorts extends CopierPorts {
  log(message: string): void;
  /** Calls `work` soon: after what is arriving together has arrived. */
  wake(): void;
  /** A number from 0 to 1, for the waits between two tries. */
  random(): number;
  modeChanged(mode: Mode): void;

  // ── the primary
  /** Writes at once. Null: that would take long, nothing was done. An errno else. */
  writeNow(command: WriteCommand): number | null;
  writeLater(command: WriteCommand, done: (errno: number) => void): void;
  /** All writes that have ended before are on stable storage. */
  syncPrimary(done: (errno: number) => void): void;

  // ── the map of intent
  /** Writes these pages of the map as it is now, and makes them durable. */
  storeIntent(pages: readonly number[], done: (stored: boolean) => void): void;
  /** Notes that primary and appliance have been equal. */
  storeSynced(): void;

  // ── the appliance
  /** Connects after a while, once; ends in `connected` or in `lost`. */
  connect(afterMs: number): void;
  /** What was sent fails, which counts for nothing any more. */
  disconnect(reason: string): void;
  /** A write for the connection; sent in the order of the calls, by `kick`. */
  send(command: WriteCommand): void;
  kick(): void;
  flushAppliance(done: (errno: number) => void): void;
  /** Durable when done. Null: it has failed, which has been said. */
  openGap(behindMs: number, done: (gap: Gap | null) => void): void;
  closeGap(done: (closed: boolean) => void): void;
  mark(name: string, kind: string, done: (point: MarkPoint | Error) => void): void;
}
