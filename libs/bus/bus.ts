// The port between services: streams of events in order, and requests with answers. Two adapters, embedded and
// NATS JetStream; test/contract.ts says what both do.
import { assert } from '@midmirror/basis';
import type { CatalogTransaction } from '@midmirror/catalog';
import { type EventEnvelope, Streams } from '@midmirror/events';

export interface BusMessage {
  position: number;
  subject: string;
  headers: Readonly<Record<string, string>>;
  data: Uint8Array;
}

export interface Subscription {
  /** Everything up to here is handled, or lies in the dead letters. */
  readonly position: number;
  /** Stops after the message in hand. */
  stop(): Promise<void>;
  /**
   * Resolves when the handler has seen everything up to `position`. Rejects with `unavailable` when the stream
   * has lost it: its owner publishes it again, at a position that only the owner knows.
   */
  reached(position: number): Promise<void>;
}

export interface Responder {
  /** Resolves when no new request can come. Those under way are answered still. */
  stop(): Promise<void>;
}

export interface RequestContext {
  /** W3C trace context of whoever asks. */
  traceparent?: string;
}

export type RequestHandler = (ask: unknown, context: RequestContext) => Promise<unknown>;

export interface RequestOptions extends RequestContext {
  timeoutMs?: number;
  /** Asks the one who serves this volume. */
  volumeId?: string;
}

export interface Bus {
  /**
   * Durable when it resolves. A message with the id of an earlier one of the stream is that one: for good in the
   * embedded bus, for `duplicateWindowMs` in JetStream. Not for the timeline, see `publishIn`.
   */
  publish(
    stream: string,
    subject: string,
    envelope: EventEnvelope,
  ): Promise<{ position: number; duplicate: boolean }>;
  /** The event commits with the transaction. The timeline's events are published so and in no other way. */
  publishIn(tx: CatalogTransaction, stream: string, subject: string, envelope: EventEnvelope): Promise<void>;
  /**
   * Messages after a position, in order, one at a time; then as they come. A message whose handler keeps failing
   * goes to the dead letters, and the next one follows; while something it needs is away (a retryable error) it
   * waits. A message may come again: handlers are idempotent.
   * Positions of a stream that was made anew are greater than all before, so a stored one begins it at its start.
   */
  consume(options: {
    stream: string;
    after: number;
    handler: (message: BusMessage) => Promise<void>;
  }): Subscription;
  /** Resolves when the bus is there. */
  ready(): Promise<void>;
  lastPosition(stream: string): Promise<number>;
  /** Position of the newest message of a subject; 0: there is none. */
  lastOf(stream: string, subject: string): Promise<number>;
  /** Called when the bus is back after it was away: owners see by `lastOf` whether a stream lacks what they published. */
  onReturn(listener: () => void): void;
  /** Removes the messages of a subject up to and including a position. */
  purge(stream: string, subject: string, upTo: number): Promise<void>;
  deadLetters(): Promise<BusMessage[]>;
  /** Rejects with the responder's MidmirrorError, or `unavailable` when nobody answers in time. */
  request(subject: string, ask: unknown, options?: RequestOptions): Promise<unknown>;
  /**
   * With a volume, answers for that volume only. A request is answered either by those who serve its volume or by
   * any responder: not by both kinds.
   */
  respond(subject: string, handler: RequestHandler, options?: { volumeId?: string }): Responder;
  close(): Promise<void>;
}

/** A row and the event that tells of it commit together; descriptors and dead letters have no row. */
export function checkWayOf(stream: string, way: 'publish' | 'publishIn'): void {
  assert((stream === Streams.timeline) === (way === 'publishIn'), `${stream} is not for ${way}`);
}
