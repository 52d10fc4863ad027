// Publishes the events that were committed with their rows, in the order of the commits. The catalogue's `message`
// table is the outbox. How far it is published is not written anywhere: the stream's last message says it by its id.
//
// Several processes may relay one outbox, or one may wake late from a long stop: each message is published with the
// sequence number that it expects the stream to end at, so a stream that has gone on refuses it, and the relay looks
// again where it stands. What two relays publish at the same time is one message by its id.
//
// Published rows are kept for a while. A stream that has lost its end, or everything, gets them again, with the same
// sequence numbers, as nobody else publishes to it.
import { setTimeout as pause } from 'node:timers/promises';
import { messageOf } from '@midmirror/basis';
import type { Catalog, CatalogTransaction } from '@midmirror/catalog';
import { Streams } from '@midmirror/events';
import { JetStreamApiCodes } from '@nats-io/jetstream';
import { limits } from '../limits.ts';
import { natsHeaders } from './nats-message.ts';
import { inSession, type NatsLink, type Session } from './nats-link.ts';
import { hasCode } from './streams.ts';

/** The last row that is published, and the sequence number of its message. */
interface Place {
  session: Session;
  row: number;
  sequence: number;
}

export class OutboxRelay {
  readonly #catalog: Catalog;
  readonly #link: Pick<NatsLink, 'ready'>;
  readonly #log: (message: string) => void;
  readonly #written = new WeakSet<CatalogTransaction>();
  readonly #running: Promise<void>;
  #place: Place | null = null;
  #prunedTo = 0;
  #woken = false;
  #wake: () => void = () => {};
  #stopping = false;

  constructor(catalog: Catalog, link: Pick<NatsLink, 'ready'>, log: (message: string) => void) {
    this.#catalog = catalog;
    this.#link = link;
    this.#log = log;
    catalog.onCommit((tx) => {
      if (this.#written.has(tx)) this.#wakeUp();
    });
    this.#running = this.#run();
  }

  /** The transaction has put something into the outbox. */
  wrote(tx: CatalogTransaction): void {
    this.#written.add(tx);
  }

  /** What is not published by then is published at the next start. While the server is away, ends with the link. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#wakeUp();
    await this.#running;
  }

  #wakeUp(): void {
    this.#woken = true;
    this.#wake();
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      const session = await this.#link.ready().catch(() => null);
      if (session === null || this.#stopping) return;
      this.#woken = false;
      try {
        if (await this.#page(session)) continue;
      } catch (error) {
        this.#place = null;
        // Refused as another relay was faster: nothing to tell.
        const overtaken = hasCode(error, JetStreamApiCodes.StreamWrongLastSequence);
        if (!session.ended.aborted && !this.#stopping && !overtaken)
          this.#log(`the timeline's events wait to be published: ${messageOf(error)}`);
        await pause(limits.connectEveryMs);
        continue;
      }
      await this.#slept(limits.outboxLookMs);
    }
  }

  /** Until something is written, or so long. */
  async #slept(ms: number): Promise<void> {
    if (this.#woken) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      timer.unref();
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Publishes what comes next; whether there may be more. */
  async #page(session: Session): Promise<boolean> {
    if (this.#place?.session !== session) this.#place = await this.#find(session);
    const place = this.#place;
    const rows = await this.#catalog.db
      .selectFrom('message')
      .selectAll()
      .where('stream', '=', Streams.timeline)
      .where('position', '>', place.row)
      .orderBy('position')
      .limit(limits.outboxPageRows)
      .execute();
    for (const row of rows) {
      if (this.#stopping || session.ended.aborted) return false;
      const options = {
        headers: natsHeaders(JSON.parse(row.headers) as Record<string, string>),
        msgID: row.message_id,
        expect: { streamName: Streams.timeline, lastSequence: place.sequence },
      };
      const { seq } = await inSession(session, () => session.js.publish(row.subject, row.data, options));
      place.row = row.position;
      place.sequence = Math.max(place.sequence, seq);
    }
    await this.#prune(place.row);
    return rows.length === limits.outboxPageRows;
  }

  /** The stream's end comes first: a row that is published after this look is refused or known by its id. */
  async #find(session: Session): Promise<Place> {
    const { state } = await session.jsm.streams.info(Streams.timeline);
    const place = { session, row: 0, sequence: state.last_seq };
    if (state.messages === 0) return place;
    const last = await session.jsm.streams.getMessage(Streams.timeline, { seq: state.last_seq });
    const row = await this.#catalog.db
      .selectFrom('message')
      .select('position')
      .where('stream', '=', Streams.timeline)
      .where('message_id', '=', last?.header.get('Nats-Msg-Id') ?? '')
      .executeTakeFirst();
    // Not known here: the stream is older than all that is kept, or was cleared. What is kept is told again.
    return { ...place, row: row?.position ?? 0 };
  }

  async #prune(published: number): Promise<void> {
    const upTo = published - limits.outboxKeptRows;
    if (upTo < this.#prunedTo + limits.outboxPageRows) return;
    await this.#catalog.db
      .deleteFrom('message')
      .where('stream', '=', Streams.timeline)
      .where('position', '<=', upTo)
      .execute();
    this.#prunedTo = upTo;
  }
}
