// The bus on NATS JetStream, for services in several processes.
import { MidmirrorError, messageOf as reasonOf } from '@midmirror/basis';
import type { Catalog, CatalogTransaction } from '@midmirror/catalog';
import { type EventEnvelope, Streams } from '@midmirror/events';
import { InvalidArgumentError } from '@nats-io/transport-node';
import type { Bus, BusMessage, RequestHandler, RequestOptions, Responder, Subscription } from '../bus.ts';
import { checkWayOf } from '../bus.ts';
import { limits, streamBytesMaxDefault } from '../limits.ts';
import { messageInsert } from '../message-row.ts';
import { messageOf, natsHeaders } from './nats-message.ts';
import { inSession, NatsLink, type NatsServerOptions, type Session } from './nats-link.ts';
import { NatsRequests } from './nats-requests.ts';
import { OutboxRelay } from './outbox-relay.ts';
import { StreamReader } from './stream-reader.ts';
import type { StreamLimits } from './streams.ts';

export interface NatsBusOptions extends NatsServerOptions, Partial<StreamLimits> {
  catalog: Catalog;
}

/** Returns at once, whether the server is there or not. */
export function openNatsBus(options: NatsBusOptions): Bus {
  return new NatsBus(options);
}

class NatsBus implements Bus {
  readonly #link: NatsLink;
  readonly #relay: OutboxRelay;
  readonly #requests: NatsRequests;
  readonly #log: (message: string) => void;
  readonly #readers = new Set<StreamReader>();
  /** The highest sequence number acknowledged in a session, by stream. */
  readonly #acknowledged = new WeakMap<Session, Map<string, number>>();

  constructor({ catalog, ...options }: NatsBusOptions) {
    this.#log = options.log;
    const { journal, timeline, dead } = streamBytesMaxDefault;
    const bytesMax = { journalBytesMax: journal, timelineBytesMax: timeline, deadBytesMax: dead };
    this.#link = new NatsLink(options, { replicas: 1, ...bytesMax, ...options });
    this.#requests = new NatsRequests(this.#link);
    this.#relay = new OutboxRelay(catalog, this.#link, this.#log);
  }

  async publish(
    stream: string,
    subject: string,
    envelope: EventEnvelope,
  ): Promise<{ position: number; duplicate: boolean }> {
    checkWayOf(stream, 'publish');
    return await this.#inSession(async (session) => {
      const before = this.#acknowledged.get(session)?.get(stream) ?? 0;
      const { seq, duplicate } = await session.js.publish(subject, envelope.data, {
        headers: natsHeaders(envelope.headers),
        msgID: envelope.id,
        expect: { streamName: stream },
      });
      if (!duplicate) this.#acknowledge(session, stream, seq, before);
      return { position: session.bases.get(stream)! + seq, duplicate };
    });
  }

  async publishIn(
    tx: CatalogTransaction,
    stream: string,
    subject: string,
    envelope: EventEnvelope,
  ): Promise<void> {
    checkWayOf(stream, 'publishIn');
    await messageInsert(tx, stream, subject, envelope).execute();
    this.#relay.wrote(tx);
  }

  consume(options: {
    stream: string;
    after: number;
    handler: (message: BusMessage) => Promise<void>;
  }): Subscription {
    const reader = new StreamReader({
      ...options,
      link: this.#link,
      publish: this.publish.bind(this),
      log: this.#log,
      stopped: () => this.#readers.delete(reader),
    });
    this.#readers.add(reader);
    return reader;
  }

  async ready(): Promise<void> {
    await this.#link.ready();
  }

  async lastPosition(stream: string): Promise<number> {
    return await this.#inSession(async ({ jsm, bases }) => {
      const { state } = await jsm.streams.info(stream);
      return bases.get(stream)! + state.last_seq;
    });
  }

  async lastOf(stream: string, subject: string): Promise<number> {
    return await this.#inSession(async (session) => {
      const last = await session.jsm.streams.getMessage(stream, { last_by_subj: subject });
      return last === null ? 0 : session.bases.get(stream)! + last.seq;
    });
  }

  onReturn(listener: () => void): void {
    this.#link.onSession(listener);
  }

  async purge(stream: string, subject: string, upTo: number): Promise<void> {
    await this.#inSession(async (session) => {
      // What comes from before this stream was made is gone with the one before it.
      const upToSequence = Math.min(upTo - session.bases.get(stream)!, Number.MAX_SAFE_INTEGER - 1);
      if (upToSequence > 0)
        await session.jsm.streams.purge(stream, { filter: subject, seq: upToSequence + 1 });
    });
  }

  async deadLetters(): Promise<BusMessage[]> {
    return await this.#inSession(async ({ js, jsm, bases }) => {
      const { state } = await jsm.streams.info(Streams.dead);
      const letters: BusMessage[] = [];
      if (state.messages === 0) return letters;
      const consumer = await js.consumers.get(Streams.dead);
      const wanted = Math.min(state.messages, limits.deadLettersMax);
      const messages = await consumer.fetch({ max_messages: wanted, expires: limits.serverCallMsMax });
      for await (const { seq, subject, headers, data } of messages)
        letters.push(messageOf(bases.get(Streams.dead)! + seq, { subject, headers, data }));
      await consumer.delete();
      return letters;
    });
  }

  async request(subject: string, ask: unknown, options?: RequestOptions): Promise<unknown> {
    return await this.#requests.request(subject, ask, options);
  }

  respond(subject: string, handler: RequestHandler, options: { volumeId?: string } = {}): Responder {
    return this.#requests.respond(subject, handler, options);
  }

  async close(): Promise<void> {
    await this.#requests.close();
    await Promise.all([...this.#readers].map((reader) => reader.stop()));
    const relay = this.#relay.stop();
    await this.#link.flush();
    await this.#link.close();
    await relay;
  }

  async #inSession<T>(act: (session: Session) => Promise<T>): Promise<T> {
    const session = this.#link.session();
    try {
      return await inSession(session, () => act(session));
    } catch (error) {
      throw errorOf(error);
    }
  }

  #acknowledge(session: Session, stream: string, sequence: number, before: number): void {
    const highest = this.#acknowledged.get(session) ?? new Map<string, number>();
    this.#acknowledged.set(session, highest);
    if (sequence <= before) {
      // The stream was made anew under us, and its positions are not those of before.
      this.#link.renew(session, `${stream} was made anew`);
      throw new MidmirrorError('unavailable', `${stream} was made anew while it was published to; try again`);
    }
    highest.set(stream, Math.max(sequence, highest.get(stream) ?? 0));
  }
}

function errorOf(error: unknown): MidmirrorError {
  if (error instanceof MidmirrorError) return error;
  if (error instanceof InvalidArgumentError)
    return new MidmirrorError('bad-request', `NATS refuses it: ${reasonOf(error)}`, { cause: error });
  return new MidmirrorError('unavailable', `NATS: ${reasonOf(error)}`, { cause: error });
}
