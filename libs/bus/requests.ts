// Requests between services, typed by the events package.
import { type RequestName, type Requests, requestSubject } from '@midmirror/events';
import type { Bus } from './bus.ts';

const DAY_MS = 24 * 3600 * 1000;

function subjectOf(name: RequestName): string {
  const [service, request] = name.split('.') as [string, string];
  return requestSubject(service, request);
}

/** Waits as long as the work may take (at most a day): syncs answer when applied. */
export async function ask<N extends RequestName>(
  bus: Bus,
  name: N,
  body: Requests[N]['ask'],
): Promise<Requests[N]['answer']> {
  return (await bus.request(subjectOf(name), body, DAY_MS)) as Requests[N]['answer'];
}

export function answer<N extends RequestName>(
  bus: Bus,
  name: N,
  handler: (ask: Requests[N]['ask']) => Promise<Requests[N]['answer']>,
): void {
  bus.respond(subjectOf(name), (body) => handler(body as Requests[N]['ask']));
}
