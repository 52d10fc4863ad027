// Requests over core NATS. Who works on one gives a sign of life each second, so an answer may take hours, and a
// responder that dies is noticed in seconds.
import { setTimeout as pause } from 'node:timers/promises';
import { type ErrorCode, MidmirrorError, messageOf } from '@midmirror/basis';
import { createInbox, type Msg, type NatsConnection, type Subscription } from '@nats-io/transport-node';
import type { RequestContext, RequestHandler, RequestOptions, Responder } from '../bus.ts';
import { limits } from '../limits.ts';
import { natsHeaders } from './nats-message.ts';
import type { NatsLink } from './nats-link.ts';

const STATUS = 'mim-status';
/** Of an answer that is too large for one message: its number, from 0. */
const PART = 'mim-part';
const QUEUE = 'midmirror';
const NO_RESPONDERS = 503;

interface Asked {
  subject: string;
  /** Of an answer that comes in several messages. */
  parts: Uint8Array[];
  /** Heard of: the silence begins anew. */
  alive(): void;
  end(answer: unknown, error: MidmirrorError | null): void;
}

interface Registration {
  subjects: string[];
  handler: RequestHandler;
  subscriptions: Subscription[];
}

export class NatsRequests {
  readonly #link: NatsLink;
  readonly #inbox = createInbox();
  readonly #asked = new Map<string, Asked>();
  readonly #responders = new Set<Registration>();
  /** Requests that are being worked on here: each ends its work's signs of life with an error. */
  readonly #working = new Set<(error: MidmirrorError) => void>();
  #nextId = 1;
  #closed = false;

  constructor(link: NatsLink) {
    this.#link = link;
    link.onConnection((nc) => {
      nc.subscribe(`${this.#inbox}.*`, {
        callback: (error, msg) => {
          if (error === null) this.#answered(msg);
        },
      });
      for (const responder of this.#responders) this.#subscribe(nc, responder);
    });
  }

  async request(subject: string, ask: unknown, options: RequestOptions = {}): Promise<unknown> {
    const { timeoutMs = limits.requestMsDefault, volumeId, ...context } = options;
    if (volumeId === undefined) return await this.#ask(subject, ask, timeoutMs, context);
    const giveUp = performance.now() + Math.min(timeoutMs, limits.ownerMsMax);
    for (;;) {
      try {
        return await this.#ask(`${subject}.${volumeId}`, ask, timeoutMs, context);
      } catch (error) {
        if (!(error instanceof NobodyAnswers) || performance.now() > giveUp || this.#closed) throw error;
        await pause(limits.ownerEveryMs);
      }
    }
  }

  respond(subject: string, handler: RequestHandler, options: { volumeId?: string }): Responder {
    const { volumeId } = options;
    const subjects = volumeId === undefined ? [subject, `${subject}.*`] : [`${subject}.${volumeId}`];
    const responder: Registration = { subjects, handler, subscriptions: [] };
    this.#responders.add(responder);
    if (this.#link.subscriber !== null) this.#subscribe(this.#link.subscriber, responder);
    return {
      stop: async () => {
        this.#responders.delete(responder);
        await leave(responder);
      },
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    const stopping = new MidmirrorError('unavailable', 'the appliance is stopping');
    for (const asked of this.#asked.values()) asked.end(undefined, stopping);
    for (const end of this.#working) end(stopping);
    await Promise.all([...this.#responders].map(leave));
    this.#responders.clear();
  }

  // ── asking ─────────────────────────────────────────────────────────────────────────────────────────────

  async #ask(subject: string, ask: unknown, timeoutMs: number, context: RequestContext): Promise<unknown> {
    const nc = this.#link.connection();
    if (this.#asked.size >= limits.requestsInFlightMax) {
      throw new MidmirrorError(
        'unavailable',
        `${limits.requestsInFlightMax} requests are under way already; try again`,
      );
    }
    const reply = `${this.#inbox}.${this.#nextId++}`;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const end = (answer: unknown, error: MidmirrorError | null): void => {
      if (error === null) resolve(answer);
      else reject(error);
    };
    const after = (ms: number, why: string): NodeJS.Timeout =>
      setTimeout(() => end(null, new MidmirrorError('unavailable', why)), Math.min(ms, 2 ** 31 - 1));
    const timer = after(timeoutMs, `${subject} did not answer within ${timeoutMs} ms`);
    const silence = after(
      limits.silenceMsMax,
      `${subject}: nothing is heard of who was to answer; it may have died, or have done it`,
    );
    this.#asked.set(reply, { subject, parts: [], alive: () => silence.refresh(), end });
    try {
      nc.publish(subject, JSON.stringify(ask), { reply, headers: natsHeaders({ ...context }) });
      return await promise;
    } catch (error) {
      if (error instanceof MidmirrorError) throw error;
      throw new MidmirrorError('unavailable', `${subject} could not be asked: ${messageOf(error)}`);
    } finally {
      clearTimeout(timer);
      clearTimeout(silence);
      this.#asked.delete(reply);
    }
  }

  #answered(msg: Msg): void {
    const asked = this.#asked.get(msg.subject);
    if (asked === undefined) return; // it has given up
    if (msg.headers?.code === NO_RESPONDERS) {
      asked.end(null, new NobodyAnswers('unavailable', `nobody answers ${asked.subject}`));
      return;
    }
    const status = msg.headers?.get(STATUS);
    if (status === 'working') return asked.alive();
    if (status === 'part' || asked.parts.length > 0) {
      // One may be lost with a connection.
      if (msg.headers?.get(PART) !== String(asked.parts.length)) {
        asked.end(null, new MidmirrorError('unavailable', `${asked.subject}: a part of the answer is lost`));
        return;
      }
      asked.parts.push(msg.data);
      asked.alive();
      if (status === 'part') return;
    }
    const data = asked.parts.length === 0 ? msg.data : Buffer.concat(asked.parts);
    const body: unknown = data.length === 0 ? undefined : JSON.parse(Buffer.from(data).toString());
    if (status === 'done') asked.end(body, null);
    else asked.end(null, errorOf(body as ErrorBody));
  }

  // ── answering ──────────────────────────────────────────────────────────────────────────────────────────

  #subscribe(nc: Pick<NatsConnection, 'subscribe'>, responder: Registration): void {
    // One of those who answer gets it.
    responder.subscriptions = responder.subjects.map((subject) =>
      nc.subscribe(subject, {
        queue: QUEUE,
        callback: (error, msg) => {
          if (error === null) void this.#answer(msg, responder.handler);
        },
      }),
    );
  }

  async #answer(msg: Msg, handler: RequestHandler): Promise<void> {
    if (this.#working.size >= limits.requestsInFlightMax) {
      send(
        msg,
        'failed',
        new MidmirrorError('unavailable', 'too many requests are being worked on; try again'),
      );
      return;
    }
    const { promise: ended, reject: end } = Promise.withResolvers<never>();
    this.#working.add(end);
    const life = setInterval(() => send(msg, 'working'), limits.lifeEveryMs);
    const traceparent = msg.headers?.get('traceparent') ?? '';
    try {
      const work = handler(msg.json(), traceparent === '' ? {} : { traceparent });
      send(msg, 'done', await Promise.race([work, ended]));
    } catch (error) {
      send(msg, 'failed', error);
    } finally {
      clearInterval(life);
      this.#working.delete(end);
    }
  }
}

/** What the server has sent before it hears of it is answered still. */
async function leave({ subscriptions }: Registration): Promise<void> {
  // Without a connection there is nothing to leave.
  await Promise.all(subscriptions.map((subscription) => subscription.drain().catch(() => {})));
}

class NobodyAnswers extends MidmirrorError {}

interface ErrorBody {
  code: ErrorCode;
  message: string;
  hint?: string;
  details: Record<string, string | number | null>;
}

/** A lost connection loses the answer: who asked hears nothing and gives up. */
function send(msg: Msg, status: 'working' | 'done' | 'failed', body?: unknown): void {
  const bytes = Buffer.from(JSON.stringify(status === 'failed' ? bodyOf(body) : body) ?? '');
  try {
    if (bytes.length > limits.answerPartBytesMax) sendParts(msg, status, bytes);
    else msg.respond(bytes, { headers: natsHeaders({ [STATUS]: status }) });
  } catch (error) {
    // An answer that is too large; a second failure is that of a closed connection.
    if (status === 'done') send(msg, 'failed', new MidmirrorError('io', `no answer: ${messageOf(error)}`));
  }
}

function sendParts(msg: Msg, status: string, bytes: Uint8Array): void {
  if (bytes.length > limits.answerBytesMax)
    throw new MidmirrorError('io', `it has ${bytes.length} bytes; ${limits.answerBytesMax} are possible`);
  const partBytes = limits.answerPartBytesMax;
  for (let at = 0, part = 0; at < bytes.length; at += partBytes, part += 1) {
    const isLast = at + partBytes >= bytes.length;
    const headers = natsHeaders({ [STATUS]: isLast ? status : 'part', [PART]: String(part) });
    msg.respond(bytes.subarray(at, at + partBytes), { headers });
  }
}

function bodyOf(error: unknown): ErrorBody {
  if (!(error instanceof MidmirrorError)) return { code: 'io', message: messageOf(error), details: {} };
  const { code, message, hint, details } = error;
  return { code, message, ...(hint === undefined ? {} : { hint }), details: { ...details } };
}

function errorOf({ code, message, hint, details }: ErrorBody): MidmirrorError {
  return new MidmirrorError(code, message, { details, ...(hint === undefined ? {} : { hint }) });
}
