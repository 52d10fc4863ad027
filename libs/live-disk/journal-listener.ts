// What a journal tells its owner.
import type { RingSegment } from './ring-segment.ts';

export interface JournalListener {
  /** Everything up to this write is on stable storage. */
  durable(seq: number): void;
  sealed(segment: RingSegment): void;
  /** Share of the ring in use, told when a segment is taken. */
  pressure(share: number): void;
  stateChanged(state: JournalState, reason: string): void;
}

/** `lost`: another writer has taken the journal over; nothing is answered any more. */
export type JournalState = 'open' | 'full' | 'failed' | 'lost' | 'closed';
