// Sends the queue's entries to the appliance, in order and several ahead, and asks it to flush. One connection is one
// session: what is answered after it was lost counts for nothing.
import { Errno, type WriteCommand, type WriteKind } from '@midmirror/block-device';
import type { Limits } from '../limits.ts';
import { EntryKind, hasData, type SendQueue } from './send-queue.ts';

export interface SenderPorts {
  nowMs(): number;
  send(command: WriteCommand): void;
  kick(): void;
  flushAppliance(done: (errno: number) => void): void;
}

export interface SenderHost {
  /** Something has been answered. */
  progressed(): void;
  /** The appliance has refused something. */
  refused(errno: number, what: string): void;
}

export class Sender {
  readonly #queue: SendQueue;
  readonly #ports: SenderPorts;
  readonly #host: SenderHost;
  readonly #limits: Limits;
  readonly #free: SendSlot[] = [];
  #session = 0;
  #connected = false;
  #sentEntries = 0;
  #sentBytes = 0;
  #flushing = false;
  #lastFlushMs = 0;
  /** A flush is wanted as soon as everything up to here is answered. */
  #wantedPos = 0;
  /** Everything up to here is on stable storage at the appliance; what lies behind it was queued since then. */
  flushedPos = 0;
  unflushedSinceMs = 0;

  constructor(queue: SendQueue, ports: SenderPorts, host: SenderHost, limits: Limits) {
    this.#limits = limits;
    this.#queue = queue;
    this.#ports = ports;
    this.#host = host;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  connected(): void {
    this.#connected = true;
    this.unflushedSinceMs = this.#lastFlushMs = this.#ports.nowMs();
  }

  lost(): void {
    this.#session += 1;
    this.#connected = false;
    this.#sentEntries = this.#sentBytes = 0;
    this.#flushing = false;
    // All of the queue is let go of, and behind.
    this.flushedPos = this.#wantedPos = this.#queue.lastPos;
  }

  wantFlush(pos: number): void {
    if (pos > this.#wantedPos) this.#wantedPos = pos;
  }

  step(): void {
    if (!this.#connected) return;
    this.#send();
    this.#flush();
  }

  #send(): void {
    const queue = this.#queue;
    let any = false;
    for (let pos = queue.nextPos; pos !== 0; pos = queue.nextPos) {
      const kind = queue.kindAt(pos);
      if (kind === EntryKind.nothing) {
        queue.sent(pos);
        queue.acked(pos);
        continue;
      }
      const heldBytes = hasData(kind) ? queue.lengthAt(pos) : 0;
      const full = this.#sentBytes + heldBytes > this.#limits.sentBytesMax && this.#sentBytes > 0;
      if (full || this.#sentEntries >= this.#limits.sentEntriesMax) break;
      queue.sent(pos);
      this.#sentEntries += 1;
      this.#sentBytes += heldBytes;
      const slot = this.#free.pop() ?? new SendSlot(this);
      slot.pos = pos;
      slot.session = this.#session;
      slot.kind = hasData(kind) ? 'write' : 'zeroes';
      slot.startBytes = queue.startAt(pos);
      slot.lengthBytes = queue.lengthAt(pos);
      slot.fua = queue.fuaAt(pos);
      slot.heldBytes = heldBytes;
      slot.payloadCount = hasData(kind) ? queue.payloadAt(pos, slot.payload) : 0;
      this.#ports.send(slot);
      any = true;
    }
    if (any) this.#ports.kick();
  }

  /** For SendSlot only. */
  answered(slot: SendSlot, errno: number): void {
    const { session, pos, heldBytes } = slot;
    slot.payload.length = 0;
    this.#free.push(slot);
    if (session !== this.#session) return;
    this.#sentEntries -= 1;
    this.#sentBytes -= heldBytes;
    if (errno !== Errno.ok) return this.#host.refused(errno, 'a write');
    this.#queue.acked(pos);
    this.#host.progressed();
  }

  #flush(): void {
    const { ackedPos } = this.#queue;
    if (this.#flushing || ackedPos <= this.flushedPos) return;
    const nowMs = this.#ports.nowMs();
    const wanted = this.#wantedPos > this.flushedPos && ackedPos >= this.#wantedPos;
    if (!wanted && nowMs - this.#lastFlushMs < this.#limits.flushEveryMs) return;
    this.#flushing = true;
    this.#lastFlushMs = nowMs;
    const sinceMs = this.#queue.oldestMs ?? nowMs;
    const session = this.#session;
    this.#ports.flushAppliance((errno) => {
      if (session !== this.#session) return;
      this.#flushing = false;
      if (errno !== Errno.ok) return this.#host.refused(errno, 'a flush');
      this.flushedPos = ackedPos;
      this.unflushedSinceMs = sinceMs;
      this.#host.progressed();
    });
  }
}

/** An entry on the wire; reused. */
class SendSlot implements WriteCommand {
  kind: WriteKind = 'write';
  startBytes = 0;
  lengthBytes = 0;
  fua = false;
  payload: Uint8Array[] = [];
  payloadCount = 0;
  pos = 0;
  session = 0;
  heldBytes = 0;
  readonly #sender: Sender;

  constructor(sender: Sender) {
    this.#sender = sender;
  }

  complete(errno: number): void {
    this.#sender.answered(this, errno);
  }
}
