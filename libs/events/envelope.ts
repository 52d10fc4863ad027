// CloudEvents 1.0 in binary mode: attributes travel as message headers (`ce-*`), the body is the data.
import { MidmirrorError, msOf } from '@midmirror/basis';
import { type DomainEvent, eventId } from './domain-event.ts';

/** One message as the bus carries it. */
export interface EventEnvelope {
  id: string;
  headers: Readonly<Record<string, string>>;
  data: Uint8Array;
}

const TYPE_PREFIX = 'dev.midmirror.';

/** RFC 3339 in UTC with nanoseconds. */
export function rfc3339(timeNs: bigint): string {
  const fraction = (timeNs % 1_000_000_000n).toString().padStart(9, '0');
  return `${new Date(msOf(timeNs)).toISOString().slice(0, 19)}.${fraction}Z`;
}

/** CloudEvents' distributed tracing extension: where in a trace the event was made. Nothing when it is not traced. */
export function traceHeader(traceparent: string | undefined): Record<string, string> {
  return traceparent === undefined ? {} : { 'ce-traceparent': traceparent };
}

export function traceparentOf({ headers }: Pick<EventEnvelope, 'headers'>): string | undefined {
  return headers['ce-traceparent'];
}

export function envelopeOf(event: DomainEvent, source: string, traceparent?: string): EventEnvelope {
  const id = eventId(event);
  return {
    id,
    headers: {
      'ce-specversion': '1.0',
      'ce-id': id,
      'ce-type': TYPE_PREFIX + event.type,
      'ce-source': source,
      'ce-subject': event.volumeId,
      'ce-time': rfc3339(BigInt(event.timeNs)),
      ...traceHeader(traceparent),
      'content-type': 'application/json',
    },
    data: new TextEncoder().encode(JSON.stringify(event)),
  };
}

/** Throws `corrupt` when the message is not a domain event; the caller sends it to the dead letters. */
export function eventOf(envelope: Pick<EventEnvelope, 'headers' | 'data'>): DomainEvent {
  const type = envelope.headers['ce-type'] ?? '';
  try {
    const event = JSON.parse(new TextDecoder().decode(envelope.data)) as DomainEvent;
    if (TYPE_PREFIX + event.type === type && typeof event.volumeId === 'string') return event;
  } catch (cause) {
    throw new MidmirrorError('corrupt', `event of type "${type}" has a body that is not JSON`, { cause });
  }
  throw new MidmirrorError('corrupt', `event of type "${type}" does not match its body`);
}
