// The port between services: streams of events in order, and requests with answers. Two adapters are planned
// for it, embedded and NATS JetStream; test/contract.ts says what both must do.
import type { CatalogTransaction } from '@midmirror/catalog';
import type { EventEnvelope } from '@midmirror/events';

export interface BusMessage {
  position: number;
  subject: string;
  headers: Readonly<Record<string, string>>;
  data: Uint8Array;
}

export interface Subscription {
  /** Stops after the message in hand. */
  stop(): Promise<void>;
  /** Resolves when the handler has seen everything up to `position`. */
  reached(position: number): Promise<void>;
}

export interface Bus {
  /** Durable when it resolves. A message with the id of an earlier one of the stream is that one. */
  publish(
    stream: string,
    subject: string,
    envelope: EventEnvelope,
  ): Promise<{ position: number; duplicate: boolean }>;
  /** The event commits with the transaction. */
  publishIn(tx: CatalogTransaction, stream: string, subject: string, envelope: EventEnvelope): Promise<void>;
  /**
   * Messages after a position, in order, one at a time; then as they come. A message whose handler keeps failing
   * goes to the dead letters, and the next one follows.
   */
  consume(options: {
    stream: string;
    after: number;
    handler: (message: BusMessage) => Promise<void>;
  }): Subscription;
  lastPosition(stream: string): Promise<number>;
  /** Removes the messages of a subject up to and including a position. */
  purge(stream: string, subject: string, upTo: number): Promise<void>;
  deadLetters(): Promise<BusMessage[]>;
  /** Rejects with the responder's MidmirrorError, or `unavailable` when nobody answers in time. */
  request(subject: string, ask: unknown, timeoutMs?: number): Promise<unknown>;
  respond(subject: string, handler: (ask: unknown) => Promise<unknown>): void;
  close(): Promise<void>;
}

export const DEAD_LETTER_STREAM = 'MIM_DEAD';
