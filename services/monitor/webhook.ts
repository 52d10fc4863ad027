// Tells a receiver of the operator's what somebody should know of at once: condemned points and lost tapes, by signed HTTP
// requests. In the order of the timeline, each at least once, from a position that is kept with the catalogue; while the
// receiver is away the next one waits, and nothing else does.
import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { messageOf, MidmirrorError, ReasonLog, untilAvailable } from '@midmirror/basis';
import type { BusMessage, Subscription } from '@midmirror/bus';
import type { Catalog, CatalogReader } from '@midmirror/catalog';
import { eventOf, Streams } from '@midmirror/events';
import type { Report } from '@midmirror/telemetry';
import type { MonitorContext } from './context.ts';
import { type WebhookLimits, webhookLimits } from './limits.ts';
import { isTold, noticeOf } from './notice.ts';

export const WEBHOOK = 'monitor.webhook';

export interface WebhookOptions {
  url: string;
  /** Read for each request, so that it may be changed; white space round it does not count. */
  secretFile: string;
}

type WebhookContext = Pick<MonitorContext, 'catalog' | 'bus' | 'clock' | 'telemetry' | 'log'>;

/** `again`: it may be taken later. `refused`: it never will be. */
type Outcome = { kind: 'taken' } | { kind: 'again' | 'refused'; why: string };

export class Webhook {
  readonly #context: WebhookContext;
  readonly #options: WebhookOptions;
  readonly #limits: WebhookLimits;
  readonly #reasons: ReasonLog;
  readonly #stop = new AbortController();
  #starting: Promise<void> = Promise.resolve();
  #events: Subscription | null = null;
  #passedOver = 0;
  /** Since when and why the message in hand has waited. */
  #waiting: { sinceNs: bigint; why: string } | null = null;

  constructor(context: WebhookContext, options: WebhookOptions, limits: WebhookLimits = webhookLimits) {
    this.#context = context;
    this.#options = options;
    this.#limits = limits;
    this.#reasons = new ReasonLog((message) => context.log(message));
  }

  /** At once: what it needs may be away, and checks do not wait for it. */
  start(): void {
    const { telemetry, log } = this.#context;
    telemetry.warn(async () => {
      const why = this.#waiting?.why ?? (await this.#secret().then(() => null, messageOf));
      return why === null ? [] : [`the webhook waits: ${why}`];
    });
    this.#starting = this.#begin().catch((error: unknown) => {
      if (!this.#stop.signal.aborted) log(`the webhook does not run: ${messageOf(error)}`);
    });
  }

  async stop(): Promise<void> {
    // Before what is under way is cut off: then it is not tried again.
    const stopping = this.#events?.stop();
    this.#stop.abort(new MidmirrorError('unavailable', 'the monitor is stopping'));
    await this.#starting;
    await (stopping ?? this.#events?.stop());
  }

  async report(report: Report): Promise<void> {
    const { bus, clock } = this.#context;
    const sinceNs = this.#waiting?.sinceNs ?? null;
    const waitingNs = sinceNs === null ? 0n : clock.nowNs() - sinceNs;
    report('midmirror_webhook_waiting_seconds', {}, Number(waitingNs) / 1e9);
    if (this.#events === null) return;
    const lag = (await bus.lastPosition(Streams.timeline)) - this.#events.position;
    report('midmirror_events_lag_messages', { consumer: WEBHOOK }, Math.max(0, lag));
  }

  async #begin(): Promise<void> {
    const { bus, catalog, log } = this.#context;
    const { signal } = this.#stop;
    await this.#secret().catch((error: unknown) =>
      this.#reasons.say(`the webhook waits: ${messageOf(error)}`),
    );
    const begin = async (): Promise<number> => {
      await bus.ready();
      const known = await positionOf(catalog.db);
      if (known !== null) return known;
      const end = await bus.lastPosition(Streams.timeline);
      await storePosition(catalog, end);
      return end;
    };
    const after = await untilAvailable(begin, { what: 'the webhook: its start', log, signal });
    if (signal.aborted) return;
    const handler = (message: BusMessage): Promise<void> => this.#handle(message);
    this.#events = bus.consume({ stream: Streams.timeline, after, handler });
  }

  async #handle(message: BusMessage): Promise<void> {
    const { catalog } = this.#context;
    const event = eventOf(message);
    if (isTold(event)) await this.#send(JSON.stringify(await noticeOf(catalog.db, event)), event.type);
    else {
      this.#passedOver += 1;
      if (this.#passedOver < this.#limits.passedOverMax) return;
    }
    await storePosition(catalog, message.position);
    this.#passedOver = 0;
  }

  /** Resolves when it is taken, or passed over. Rejects when the monitor stops. */
  async #send(body: string, what: string): Promise<void> {
    const { clock, log } = this.#context;
    const { signal } = this.#stop;
    const { againMsMin, againMsMax } = this.#limits;
    for (let waitMs = againMsMin; ; waitMs = Math.min(waitMs * 2, againMsMax)) {
      signal.throwIfAborted();
      const outcome = await this.#attempt(body);
      if (outcome.kind !== 'again') {
        if (outcome.kind === 'refused') log(`the webhook passes over ${what}: ${outcome.why}: ${body}`);
        else if (this.#waiting !== null) log('the webhook goes on');
        this.#waiting = null;
        this.#reasons.over();
        return;
      }
      signal.throwIfAborted();
      this.#waiting = { sinceNs: this.#waiting?.sinceNs ?? clock.nowNs(), why: outcome.why };
      this.#reasons.say(`the webhook waits: ${outcome.why}`);
      await pause(waitMs, undefined, { signal });
    }
  }

  async #attempt(body: string): Promise<Outcome> {
    const { url } = this.#options;
    // The rest of it may be a secret.
    const { origin } = new URL(url);
    try {
      const timestamp = String(this.#context.clock.nowNs() / 1_000_000_000n);
      const signature = signatureOf(await this.#secret(), timestamp, body);
      const late = AbortSignal.timeout(this.#limits.answerMsMax);
      const response = await fetch(url, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          'user-agent': 'midmirror',
          'midmirror-timestamp': timestamp,
          'midmirror-signature': signature,
        },
        body,
        // What is signed for one is not given to another.
        redirect: 'manual',
        signal: AbortSignal.any([this.#stop.signal, late]),
      });
      await response.body?.cancel();
      if (response.ok) return { kind: 'taken' };
      const why = `${origin} answers ${response.status}`;
      return { kind: mayPass(response.status) ? 'again' : 'refused', why };
    } catch (error) {
      if (error instanceof MidmirrorError) return { kind: 'again', why: messageOf(error) };
      const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
      return { kind: 'again', why: `${origin} does not answer: ${messageOf(cause)}` };
    }
  }

  async #secret(): Promise<string> {
    const { secretFile } = this.#options;
    const wrong = (what: string): MidmirrorError =>
      new MidmirrorError(
        'unavailable',
        `MIM_WEBHOOK_SECRET: ${secretFile} ${what}; put the secret that the receiver knows into it`,
      );
    const secret = await readFile(secretFile, 'utf8').catch((error: unknown) => {
      throw wrong(`can't be read (${messageOf(error)})`);
    });
    if (secret.trim() === '') throw wrong('is empty');
    return secret.trim();
  }
}

/** What the header `Midmirror-Signature` says of a request. */
export function signatureOf(secret: string, timestamp: string, body: string): string {
  return `sha256=${createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex')}`;
}

/** Nobody is told any more: whoever is told later is told of what happens from then on. */
export async function forgetWebhook({ catalog }: Pick<MonitorContext, 'catalog'>): Promise<void> {
  await catalog.db.deleteFrom('position').where('projector', '=', WEBHOOK).execute();
}

/** Of a receiver that has too much to do, or is not well. */
function mayPass(status: number): boolean {
  return status >= 500 || status === 408 || status === 425 || status === 429;
}

async function positionOf(db: CatalogReader): Promise<number | null> {
  const row = await db
    .selectFrom('position')
    .select('position')
    .where('projector', '=', WEBHOOK)
    .executeTakeFirst();
  return row?.position ?? null;
}

async function storePosition(catalog: Catalog, position: number): Promise<void> {
  await catalog.transaction((tx) =>
    tx
      .insertInto('position')
      .values({ projector: WEBHOOK, position })
      .onConflict((conflict) => conflict.column('projector').doUpdateSet({ position }))
      .execute(),
  );
}
