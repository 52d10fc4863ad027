// A volume's timeline: where services tell each other what has happened to it.
import type { CatalogTransaction } from '@midmirror/catalog';
import { type DomainEvent, envelopeOf, Streams, timelineSubject } from '@midmirror/events';
import type { Bus } from './bus.ts';

/** The event commits with the transaction. `source` names the service, such as `/midmirror/ingest`. */
export async function tell(
  bus: Bus,
  tx: CatalogTransaction,
  source: string,
  event: DomainEvent,
  traceparent?: string,
): Promise<void> {
  const subject = timelineSubject(event.volumeId, event.type);
  await bus.publishIn(tx, Streams.timeline, subject, envelopeOf(event, source, traceparent));
}
