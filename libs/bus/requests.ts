// Requests between services, typed by the events package.
import { setTimeout as pause } from 'node:timers/promises';
import { isUnavailable, MidmirrorError } from '@midmirror/basis';
import { type RequestName, type Requests, requestSubject } from '@midmirror/events';
import type { Bus, RequestContext, Responder } from './bus.ts';
import { limits } from './limits.ts';

const DAY_MS = 24 * 3600 * 1000;

function subjectOf(name: RequestName): string {
  const [service, request] = name.split('.') as [string, string];
  return requestSubject(service, request);
}

export interface Traced {
  /** W3C trace context; undefined: this is not traced. */
  traceparent?: string | undefined;
}

/**
 * Waits as long as the work may take (at most a day): syncs answer when applied. A question about a volume goes to
 * whoever serves it. The trace of whoever asks, if it has one, goes along.
 */
export async function ask<N extends RequestName>(
  bus: Bus,
  name: N,
  body: Requests[N]['ask'],
  traced: Traced = {},
): Promise<Requests[N]['answer']> {
  return await askWithin(bus, name, body, DAY_MS, traced);
}

async function askWithin<N extends RequestName>(
  bus: Bus,
  name: N,
  body: Requests[N]['ask'],
  timeoutMs: number,
  { traceparent }: Traced,
): Promise<Requests[N]['answer']> {
  const volume = 'volumeId' in body ? { volumeId: body.volumeId } : {};
  return (await bus.request(subjectOf(name), body, {
    timeoutMs,
    ...volume,
    ...(traceparent === undefined ? {} : { traceparent }),
  })) as Requests[N]['answer'];
}

/**
 * Asks readers to get out of the way, again and again while nobody answers; null: nobody has within `leaseMs`, be they
 * away or at work, and whoever asks goes on in a way that needs no answer (readers fence themselves by the pool). Rejects
 * with any other error that is answered, and with `unavailable` once `signal` is aborted.
 */
export async function askReaders<N extends RequestName>(
  bus: Bus,
  name: N,
  body: Requests[N]['ask'],
  { leaseMs, signal, ...traced }: Traced & { leaseMs: number; signal?: AbortSignal },
): Promise<Requests[N]['answer'] | null> {
  const untilMs = performance.now() + leaseMs;
  for (let leftMs = leaseMs; leftMs > 0; leftMs = untilMs - performance.now()) {
    if (signal?.aborted) throw new MidmirrorError('unavailable', `${name} is asked no more: it is stopping`);
    try {
      return await askWithin(bus, name, body, leftMs, traced);
    } catch (error) {
      if (!isUnavailable(error)) throw error;
    }
    const stop = signal === undefined ? {} : { signal };
    await pause(limits.readersEveryMs, undefined, stop).catch(() => {});
  }
  return null;
}

export function answer<N extends RequestName>(
  bus: Bus,
  name: N,
  handler: (ask: Requests[N]['ask'], context: RequestContext) => Promise<Requests[N]['answer']>,
  options: { volumeId?: string } = {},
): Responder {
  return bus.respond(
    subjectOf(name),
    (body, context) => handler(body as Requests[N]['ask'], context),
    options,
  );
}
