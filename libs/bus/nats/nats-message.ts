// Events as NATS messages and back: CloudEvents attributes are headers, the server's own headers begin with `Nats-`.
import { type MsgHdrs, headers } from '@nats-io/transport-node';
import type { BusMessage } from '../bus.ts';

export function natsHeaders(of: Readonly<Record<string, string>>): MsgHdrs {
  const made = headers();
  for (const [name, value] of Object.entries(of)) made.set(name, value);
  return made;
}

export function messageOf(
  position: number,
  stored: { subject: string; headers: MsgHdrs | undefined; data: Uint8Array },
): BusMessage {
  const names = (stored.headers?.keys() ?? []).filter((name) => !name.startsWith('Nats-'));
  const entries = names.map((name) => [name, stored.headers!.get(name)] as const);
  return {
    position,
    subject: stored.subject,
    headers: Object.fromEntries(entries),
    // A copy: the client's buffer holds other messages too, and readers of 32-bit words need it aligned.
    data: new Uint8Array(stored.data),
  };
}
