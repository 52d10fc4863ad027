// Requests between services, typed by the events package.
import { type RequestName, type Requests, requestSubject } from '@midmirror/events';
import type { Bus, Responder } from './bus.ts';

const DAY_MS = 24 * 3600 * 1000;

function subjectOf(name: RequestName): string {
  const [service, request] = name.split('.') as [string, string];
  return requestSubject(service, request);
}

/**
 * Waits as long as the work may take (at most a day): syncs answer when applied. A question about a volume goes to
 * whoever serves it.
 */
export async function ask<N extends RequestName>(
  bus: Bus,
  name: N,
  body: Requests[N]['ask'],
): Promise<Requests[N]['answer']> {
  const volume = 'volumeId' in body ? { volumeId: body.volumeId } : {};
  return (await bus.request(subjectOf(name), body, {
    timeoutMs: DAY_MS,
    ...volume,
  })) as Requests[N]['answer'];
}

export function answer<N extends RequestName>(
  bus: Bus,
  name: N,
  handler: (ask: Requests[N]['ask']) => Promise<Requests[N]['answer']>,
  options: { volumeId?: string } = {},
): Responder {
  return bus.respond(subjectOf(name), (body) => handler(body as Requests[N]['ask']), options);
}
