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
  { traceparent }: Traced = {},
): Promise<Requests[N]['answer']> {
  const volume = 'volumeId' in body ? { volumeId: body.volumeId } : {};
  return (await bus.request(subjectOf(name), body, {
    timeoutMs: DAY_MS,
    ...volume,
    ...(traceparent === undefined ? {} : { traceparent }),
  })) as Requests[N]['answer'];
}

/**
 * Asks readers to get out of the way, again and again while nobody answers; null: nobody has for `leaseMs` since the
 * first failure, and whoever asks goes on in a way that needs no answer (readers fence themselves by the pool). Rejects
 * with any other error that is answered, and with `unavailable` once `signal` is aborted.
 */
export async function askReaders<N extends RequestName>(
  bus: Bus,
  name: N,
  body: Requests[N]['ask'],
  { leaseMs, signal, ...traced }: Traced & { leaseMs: number; signal?: AbortSignal },
): Promise<Requests[N]['answer'] | null> {
  let failedMs: number | null = null;
  for (;;) {
    if (signal?.aborted) throw new MidmirrorError('unavailable', `${name} is asked no more: it is stopping`);
    try {
      return await ask(bus, name, body, traced);
    } catch (error) {
      if (!isUnavailable(error)) throw error;
    }
    const nowMs = performance.now();
    failedMs ??= nowMs;
    const leftMs = failedMs + leaseMs - nowMs;
    if (leftMs <= 0) return null;
    await pause(
      Math.min(leftMs, limits.readersEveryMs),
      undefined,
      signal === undefined ? {} : { signal },
    ).catch(() => {});
  }
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
