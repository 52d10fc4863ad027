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

export type JournalState = 'open' | 'full' | 'failed' | 'closed';
