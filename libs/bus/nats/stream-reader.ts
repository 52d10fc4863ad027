// Reads a stream in order from a position on, and hands each message to the handler. Whatever goes wrong on the
// way ends the reading and begins it again behind the last message that was handled.
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError, messageOf as reasonOf } from '@midmirror/basis';
import {
  type Consumer,
  type ConsumerMessages,
  type ConsumerNotification,
  JetStreamApiCodes,
} from '@nats-io/jetstream';
import type { MsgHdrs } from '@nats-io/transport-node';
import type { Bus, BusMessage, Subscription } from '../bus.ts';
import { type DeliveryOptions, deliver } from '../delivery.ts';
import { limits } from '../limits.ts';
import { PositionWaiters } from '../position-waiters.ts';
import { messageOf } from './nats-message.ts';
import { inSession, type NatsLink, type Session } from './nats-link.ts';
import { basePosition, resumeAfter } from './stream-position.ts';
import { hasCode } from './streams.ts';

export interface ReaderOptions {
  link: NatsLink;
  stream: string;
  after: number;
  handler: (message: BusMessage) => Promise<void>;
  publish: Bus['publish'];
  log: (message: string) => void;
  stopped: () => void;
}

/** After these, what comes next is not sure to follow on what came before, or nothing comes. */
const TROUBLE: ReadonlySet<ConsumerNotification['type']> = new Set([
  'heartbeats_missed',
  'consumer_not_found',
  'consumer_deleted',
  'stream_not_found',
  'no_responders',
  'ordered_consumer_recreated',
]);

export class StreamReader implements Subscription {
  readonly #options: ReaderOptions;
  readonly #delivery: DeliveryOptions;
  readonly #running: Promise<void>;
  readonly #waiting = new PositionWaiters();
  #position: number;
  /** The last message that was handled: a stream that has another in its place has lost its end since. */
  #last: { sequence: number; id: string } | null = null;
  #stopping = false;
  /** Ends the reading under way. */
  #interrupt: () => void = () => {};
  #lookTimer: NodeJS.Timeout | null = null;
  #look: () => Promise<void> = async () => {};

  constructor(options: ReaderOptions) {
    this.#options = options;
    this.#position = options.after;
    const { stream, handler, publish } = options;
    this.#delivery = { stream, handler, publish, stopping: () => this.#stopping };
    this.#running = this.#run();
  }

  get position(): number {
    return this.#position;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#interrupt();
    if (this.#lookTimer !== null) clearTimeout(this.#lookTimer);
    await this.#running;
    this.#refuseWaiting('its reader was stopped');
    this.#options.stopped();
  }

  async reached(position: number): Promise<void> {
    if (this.#position >= position) return;
    if (this.#stopping) throw notReached(this.#options.stream, 'its reader was stopped');
    this.#lookSoon();
    await this.#waiting.reached(position);
  }

  async #run(): Promise<void> {
    const { link, stream, log } = this.#options;
    while (!this.#stopping) {
      const stop = Promise.withResolvers<null>();
      this.#interrupt = () => stop.resolve(null);
      const session = await Promise.race([link.ready().catch(() => null), stop.promise]);
      if (session === null) return;
      try {
        await this.#read(session);
      } catch (error) {
        if (this.#stopping || session.ended.aborted) continue;
        log(`reading ${stream} begins again: ${reasonOf(error)}`);
        if (error instanceof StreamRenewed || hasCode(error, JetStreamApiCodes.StreamNotFound))
          link.renew(session, `${stream} is not the stream that it was`);
        await pause(limits.connectEveryMs);
      } finally {
        this.#look = async () => {};
      }
    }
  }

  async #read(session: Session): Promise<void> {
    const { stream } = this.#options;
    const { lastSequence, sequence, base } = await inSession(session, () => this.#resume(session));
    const consumer = await inSession(session, () =>
      session.js.consumers.get(stream, { opt_start_seq: sequence + 1 }),
    );
    if ((await consumer.info(true)).num_pending === 0) this.#advance(base + lastSequence);
    const messages = await consumer.consume({
      max_messages: limits.pageMessages,
      expires: limits.pullMsMax,
      idle_heartbeat: limits.pullLifeMs,
      abort_on_missing_resource: true,
    });
    this.#interrupt = () => messages.stop();
    const end = (): void => messages.stop();
    session.ended.addEventListener('abort', end);
    if (session.ended.aborted || this.#stopping) end();
    const watching = stopAtTrouble(messages);
    this.#look = () => this.#lookAhead(session, consumer, base);
    try {
      for await (const message of messages) {
        if (this.#stopping || session.ended.aborted) break;
        const { seq, subject, headers, data, info } = message;
        if (!(await deliver(messageOf(base + seq, { subject, headers, data }), this.#delivery))) break;
        this.#last = { sequence: seq, id: idOf(headers) };
        // Whatever was not delivered below the end of before has been purged.
        this.#advance(info.pending === 0 ? Math.max(base + seq, base + lastSequence) : base + seq);
      }
    } finally {
      session.ended.removeEventListener('abort', end);
      messages.stop();
      await watching;
      // The server forgets it by itself too.
      void consumer.delete().catch(() => {});
    }
  }

  /** Where to go on, in this stream. */
  async #resume(session: Session): Promise<{ base: number; sequence: number; lastSequence: number }> {
    const { stream } = this.#options;
    const base = session.bases.get(stream)!;
    const info = await session.jsm.streams.info(stream);
    if (basePosition(info.created) !== base) throw new StreamRenewed(`it was made anew at ${info.created}`);
    const lastSequence = info.state.last_seq;
    let { sequence, lost } = resumeAfter(this.#position, base, lastSequence);
    if (!lost && sequence > 0 && (await this.#isAnother(session, sequence))) {
      sequence = 0;
      lost = true;
    }
    if (lost) {
      this.#options.log(
        `${stream} has lost messages that were read already; it is read from ${sequence + 1}`,
      );
      this.#refuseWaiting('the stream has lost messages');
    }
    this.#position = base + sequence;
    this.#waiting.tell(this.#position);
    return { base, sequence, lastSequence };
  }

  async #isAnother(session: Session, sequence: number): Promise<boolean> {
    if (this.#last?.sequence !== sequence) return false;
    const stored = await session.jsm.streams.getMessage(this.#options.stream, { seq: sequence });
    // Purged: nothing to tell them apart by.
    return stored !== null && idOf(stored.header) !== this.#last.id;
  }

  #advance(position: number): void {
    if (position <= this.#position) return;
    this.#position = position;
    this.#waiting.tell(this.#position);
  }

  #refuseWaiting(reason: string): void {
    this.#waiting.refuseAll(notReached(this.#options.stream, reason));
  }

  /** Who waits for a message that has been purged before it was read would wait for the next one. */
  #lookSoon(): void {
    if (this.#lookTimer !== null) return;
    this.#lookTimer = setTimeout(async () => {
      await this.#look().catch(() => {});
      this.#lookTimer = null;
      if (this.#waiting.size > 0 && !this.#stopping) this.#lookSoon();
    }, limits.reachedLookMs);
    this.#lookTimer.unref();
  }

  async #lookAhead(session: Session, consumer: Consumer, base: number): Promise<void> {
    const { last_seq } = (await session.jsm.streams.info(this.#options.stream)).state;
    const { num_pending, delivered } = await consumer.info();
    // All that there is has been delivered, and what was delivered is handled.
    if (num_pending === 0 && base + delivered.stream_seq <= this.#position && !session.ended.aborted)
      this.#advance(base + last_seq);
  }
}

class StreamRenewed extends Error {}

/** Ends the reading when its next message is not sure to follow on the last. Resolves when it has ended. */
export async function stopAtTrouble(messages: ConsumerMessages): Promise<void> {
  for await (const status of messages.status()) if (TROUBLE.has(status.type)) messages.stop();
}

function idOf(headers: MsgHdrs | undefined): string {
  return headers?.get('Nats-Msg-Id') ?? '';
}

function notReached(stream: string, reason: string): MidmirrorError {
  return new MidmirrorError('unavailable', `a message of ${stream} was waited for: ${reason}; try again`);
}
