// The bus of the single process: streams are a table in the catalogue's file, so that an event and its rows
// commit together; requests are calls. Consumers are woken by commits, not by polling.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError } from '@midmirror/basis';
import type { Catalog, CatalogTransaction } from '@midmirror/catalog';
import { type EventEnvelope, Streams } from '@midmirror/events';
import {
  type Bus,
  type BusMessage,
  checkWayOf,
  type RequestHandler,
  type RequestOptions,
  type Responder,
  type Subscription,
} from './bus.ts';
import { type DeliveryOptions, deliver } from './delivery.ts';
import { limits } from './limits.ts';
import { messageInsert } from './message-row.ts';
import { PositionWaiters } from './position-waiters.ts';

export function openEmbeddedBus(catalog: Catalog): Bus {
  return new EmbeddedBus(catalog);
}

class EmbeddedBus implements Bus {
  readonly #catalog: Catalog;
  readonly #consumers = new Set<Consumer>();
  /** Streams that a transaction under way has written to. */
  readonly #written = new WeakMap<CatalogTransaction, Set<string>>();
  /** By subject, and by subject and volume. */
  readonly #responders = new Map<string, RequestHandler>();
  /** Requests under way: what ends each of them early. */
  readonly #requests = new Set<(error: MidmirrorError) => void>();

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
    catalog.onCommit((tx) => {
      const streams = this.#written.get(tx);
      for (const consumer of this.#consumers) if (streams?.has(consumer.stream)) consumer.wake();
    });
  }

  async publish(stream: string, subject: string, envelope: EventEnvelope) {
    checkWayOf(stream, 'publish');
    return await this.#catalog.transaction((tx) => this.#insert(tx, stream, subject, envelope));
  }

  async publishIn(
    tx: CatalogTransaction,
    stream: string,
    subject: string,
    envelope: EventEnvelope,
  ): Promise<void> {
    checkWayOf(stream, 'publishIn');
    await this.#insert(tx, stream, subject, envelope);
  }

  consume(options: {
    stream: string;
    after: number;
    handler: (message: BusMessage) => Promise<void>;
  }): Subscription {
    const consumer = new Consumer(this.#catalog, options, this.publish.bind(this), () =>
      this.#consumers.delete(consumer),
    );
    this.#consumers.add(consumer);
    return consumer;
  }

  async lastPosition(stream: string): Promise<number> {
    const { db } = this.#catalog;
    const row = await db
      .selectFrom('message')
      .select((e) => e.fn.max('position').as('last'))
      .where('stream', '=', stream)
      .executeTakeFirst();
    return row?.last ?? 0;
  }

  async lastOf(stream: string, subject: string): Promise<number> {
    const { db } = this.#catalog;
    const row = await db
      .selectFrom('message')
      .select((e) => e.fn.max('position').as('last'))
      .where('stream', '=', stream)
      .where('subject', '=', subject)
      .executeTakeFirst();
    return row?.last ?? 0;
  }

  /** It is never away. */
  async ready(): Promise<void> {}

  onReturn(): void {}

  async purge(stream: string, subject: string, upTo: number): Promise<void> {
    const { db } = this.#catalog;
    await db
      .deleteFrom('message')
      .where('stream', '=', stream)
      .where('subject', '=', subject)
      .where('position', '<=', upTo)
      .execute();
  }

  async deadLetters(): Promise<BusMessage[]> {
    const { db } = this.#catalog;
    const rows = await db
      .selectFrom('message')
      .selectAll()
      .where('stream', '=', Streams.dead)
      .orderBy('position')
      .limit(limits.deadLettersMax)
      .execute();
    return rows.map(toMessage);
  }

  async request(subject: string, ask: unknown, options: RequestOptions = {}): Promise<unknown> {
    const { timeoutMs = limits.requestMsDefault, volumeId, traceparent } = options;
    const responder = this.#responders.get(`${subject}.${volumeId}`) ?? this.#responders.get(subject);
    if (responder === undefined) throw new MidmirrorError('unavailable', `nobody answers ${subject}`);
    if (this.#requests.size >= limits.requestsInFlightMax) {
      throw new MidmirrorError(
        'unavailable',
        `${limits.requestsInFlightMax} requests are under way already; try again`,
      );
    }
    let end: (error: MidmirrorError) => void = () => {};
    const ended = new Promise<never>((_resolve, reject) => {
      end = reject;
    });
    const timer = setTimeout(
      () => end(new MidmirrorError('unavailable', `${subject} did not answer within ${timeoutMs} ms`)),
      Math.min(timeoutMs, 2 ** 31 - 1),
    );
    this.#requests.add(end);
    try {
      // Through JSON, so that nothing passes here that would not pass a network.
      const context = traceparent === undefined ? {} : { traceparent };
      const answer = await Promise.race([responder(JSON.parse(JSON.stringify(ask)), context), ended]);
      return JSON.parse(JSON.stringify(answer));
    } finally {
      clearTimeout(timer);
      this.#requests.delete(end);
    }
  }

  respond(subject: string, handler: RequestHandler, options: { volumeId?: string } = {}): Responder {
    const key = options.volumeId === undefined ? subject : `${subject}.${options.volumeId}`;
    this.#responders.set(key, handler);
    return {
      stop: async () => {
        // Another one may have taken it over.
        if (this.#responders.get(key) === handler) this.#responders.delete(key);
      },
    };
  }

  async #insert(
    tx: CatalogTransaction,
    stream: string,
    subject: string,
    envelope: EventEnvelope,
  ): Promise<{ position: number; duplicate: boolean }> {
    this.#written.set(tx, (this.#written.get(tx) ?? new Set()).add(stream));
    const inserted = await messageInsert(tx, stream, subject, envelope)
      .returning('position')
      .executeTakeFirst();
    if (inserted !== undefined) return { position: inserted.position, duplicate: false };
    const existing = await tx
      .selectFrom('message')
      .select('position')
      .where('stream', '=', stream)
      .where('message_id', '=', envelope.id)
      .executeTakeFirstOrThrow();
    return { position: existing.position, duplicate: true };
  }

  async close(): Promise<void> {
    this.#responders.clear();
    for (const end of this.#requests) end(new MidmirrorError('unavailable', 'the appliance is stopping'));
    await Promise.all([...this.#consumers].map((consumer) => consumer.stop()));
  }
}

class Consumer implements Subscription {
  readonly #catalog: Catalog;
  readonly stream: string;
  readonly #delivery: DeliveryOptions;
  readonly #stopped: () => void;
  #position: number;
  #stopping = false;
  #wake: (() => void) | null = null;
  #woken = false;
  readonly #waiting = new PositionWaiters();
  readonly #running: Promise<void>;

  constructor(
    catalog: Catalog,
    options: { stream: string; after: number; handler: (message: BusMessage) => Promise<void> },
    publish: Bus['publish'],
    stopped: () => void,
  ) {
    this.#catalog = catalog;
    this.stream = options.stream;
    this.#delivery = { ...options, publish, stopping: () => this.#stopping };
    this.#position = options.after;
    this.#stopped = stopped;
    this.#running = this.#run();
  }

  get position(): number {
    return this.#position;
  }

  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.wake();
    await this.#running;
    this.#stopped();
  }

  async reached(position: number): Promise<void> {
    if (this.#position >= position) return;
    await this.#waiting.reached(position);
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      this.#woken = false;
      const page = await this.#page();
      for (const message of page) {
        if (this.#stopping) return;
        if (!(await deliver(message, this.#delivery))) return;
        this.#position = message.position;
        this.#waiting.tell(this.#position);
      }
      if (page.length < limits.pageMessages && !this.#woken && !this.#stopping) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = null;
      }
    }
  }

  async #page(): Promise<BusMessage[]> {
    try {
      const rows = await this.#catalog.db
        .selectFrom('message')
        .selectAll()
        .where('stream', '=', this.stream)
        .where('position', '>', this.#position)
        .orderBy('position')
        .limit(limits.pageMessages)
        .execute();
      return rows.map(toMessage);
    } catch {
      // The catalogue can't be read now: nothing is lost, the next round asks again.
      await pause(limits.retryMsMax);
      this.#woken = true;
      return [];
    }
  }
}

function toMessage(row: {
  position: number;
  subject: string;
  headers: string;
  data: Uint8Array;
}): BusMessage {
  const headers = JSON.parse(row.headers) as Record<string, string>;
  return { position: row.position, subject: row.subject, headers, data: row.data };
}
