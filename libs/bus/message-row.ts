// A message as a row of the catalogue: what the embedded bus reads, and what waits there to be published elsewhere.
import type { CatalogTransaction } from '@midmirror/catalog';
import type { EventEnvelope } from '@midmirror/events';

/** Commits with the transaction; nothing is inserted when the stream has a message of that id. */
export function messageInsert(
  tx: CatalogTransaction,
  stream: string,
  subject: string,
  envelope: EventEnvelope,
) {
  return tx
    .insertInto('message')
    .values({
      stream,
      subject,
      message_id: envelope.id,
      headers: JSON.stringify(envelope.headers),
      data: envelope.data,
      time_ns: envelope.headers['ce-time'] ?? '',
    })
    .onConflict((conflict) => conflict.columns(['stream', 'message_id']).doNothing());
}
