// What the library needs of a kind of medium. The library (cartridge-library.ts) decides; a medium only does.
import type { LeaseStore } from './lease.ts';
import type { Cartridge, Part } from './tape-library.ts';

export interface PartWriter {
  readonly position: number;
  /** Bytes taken from the start of the piece: fewer than it has when the cartridge is full. Errors: `no-space`, `io`. */
  write(piece: Uint8Array): Promise<number>;
  /** Data first, then the label: when it resolves both are durable; a crash before leaves an unfinished part. */
  finish(part: Part): Promise<void>;
  /** What was written is to be forgotten. Never rejects. */
  abandon(): Promise<void>;
}

export interface OpenedPart {
  /** As the label on the medium says it. */
  readonly part: Part;
  /** Its bytes, fewer when the medium has fewer. */
  readonly stream: AsyncIterable<Uint8Array>;
}

export type Place = Pick<Cartridge, 'barcode' | 'location' | 'vaultPlace'>;

export interface Media {
  readonly url: string;
  readonly leaseStore: LeaseStore;
  /** True: reading moves things too, so it needs the lease. */
  readonly readsAlone: boolean;
  cartridges(): Promise<Cartridge[]>;
  /** The same for one; `null`: it is not here. */
  cartridge(barcode: string): Promise<Cartridge | null>;
  /** How much of an archive still fits on it, as its labels tell. */
  room(cartridge: Cartridge): number;
  /** No more than where it is. */
  where(barcode: string): Promise<Place | null>;
  add(barcode: string, capacityBytes: number, overwriteForeign: boolean): Promise<void>;
  /** Takes what is unfinished on it away, reads the label on the medium, and begins a part. A text: why it can't. */
  begin(cartridge: Cartridge, heldBy: HeldLease): Promise<PartWriter | string>;
  /** `null`: there is no such part on it. */
  open(barcode: string, position: number, sha256: string, signal?: AbortSignal): Promise<OpenedPart | null>;
  erase(part: Part): Promise<void>;
  /** Before a write: finds out what a killed one has left. */
  recover(): Promise<void>;
  protect(barcode: string, writeProtected: boolean): Promise<void>;
  eject(barcode: string, vaultPlace: string): Promise<void>;
  import(barcode: string): Promise<void>;
  close(): Promise<void>;
}

/** Asked before each step that others could see. */
export interface HeldLease {
  /** Rejects with `locked` when another process has taken over. */
  confirm(): Promise<void>;
}
