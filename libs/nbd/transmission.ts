// The transmission phase of one connection, without its socket: takes received bytes, calls the device, hands
// reply bytes to a link. Everything that arrived together is submitted together, stored by one `kick`, and
// answered by one send. No object per request on the way of writes and cached reads: requests are pooled.
import {
  type BlockDevice,
  type ContextExtent,
  Errno,
  errnoOf,
  type MetadataContext,
  type RequestMeter,
  type WriteCommand,
  type WriteKind,
} from '@midmirror/block-device';
import { readU16, readU32, readU64, setU16, setU32, setU64 } from './bytes.ts';
import type { NbdLimits } from './limits.ts';
import {
  allocationContextId,
  Chunk,
  Command,
  CommandFlag,
  requestHeaderBytes,
  requestMagic,
  Status,
  simpleReplyMagic,
  structuredReplyMagic,
} from './protocol.ts';
import type { ReceiveBuffer, ReceiveBufferPool } from './receive-buffers.ts';

/** Where replies go. `send` takes the bytes until `sent` is called. */
export interface Link {
  send(bytes: Uint8Array, sent: () => void): void;
  /** No more input for now, or again. */
  pause(): void;
  resume(): void;
  /** Hang up once everything handed to `send` is out. */
  hangUp(): void;
}

/** What the handshake has agreed on. The contexts beside `base:allocation` stand in the order of their ids. */
export interface Negotiated {
  structured: boolean;
  allocation: boolean;
  contexts: readonly Pick<MetadataContext, 'blockStatus'>[];
}

const OUT_BYTES = 256 << 10;
const SIMPLE_REPLY_BYTES = 16;
const READ_CHUNK_BYTES = 28;
const SYNCHRONOUS_READ_BYTES_MAX = 128 << 10;
const OUT_POOLED_MAX = 4;

export class Transmission {
  readonly #device: BlockDevice;
  readonly #link: Link;
  readonly #limits: NbdLimits;
  readonly #structured: boolean;
  readonly #allocation: boolean;
  readonly #contexts: Negotiated['contexts'];
  readonly #buffers: ReceiveBufferPool;
  readonly #meter: RequestMeter | null;

  readonly #header = new Uint8Array(requestHeaderBytes);
  #headerFill = 0;
  /** The write whose payload is arriving. */
  #arriving: PooledWrite | null = null;
  #payloadLeft = 0;
  /** A refused write: its payload is skipped, then it is answered. Clients still sending expect no answer yet. */
  readonly #refused = { skipLeft: 0, high: 0, low: 0, errno: 0 };
  /** Input that waits because the connection is at a limit. */
  #stalled: {
    bytes: Uint8Array;
    at: number;
    to: number;
    buffer: ReceiveBuffer | null;
    arrivedMs: number;
  } | null = null;

  #requestsInFlight = 0;
  #bytesInFlight = 0;
  readonly #freeWrites: PooledWrite[] = [];
  #submitted = false;
  #receiving = false;
  /** With a meter: when the input in hand arrived, and when the answers in hand were given (0: there are none). */
  #arrivedMs = 0;
  #answeredMs = 0;

  #out: Uint8Array = new Uint8Array(OUT_BYTES);
  #outFill = 0;
  #outScheduled = false;
  readonly #freeOut: Uint8Array[] = [];
  #unsentBytes = 0;
  #ended = false;
  #idle: PromiseWithResolvers<void> | null = null;

  constructor(
    device: BlockDevice,
    link: Link,
    limits: NbdLimits,
    negotiated: Negotiated,
    buffers: ReceiveBufferPool,
    meter: RequestMeter | null = null,
  ) {
    this.#device = device;
    this.#link = link;
    this.#limits = limits;
    this.#structured = negotiated.structured;
    this.#allocation = negotiated.allocation;
    this.#contexts = negotiated.contexts;
    this.#buffers = buffers;
    this.#meter = meter;
  }

  /** `bytes[from, to)` has arrived. `buffer` is what it lies in when that is pooled; else it must stay as it is. */
  receive(bytes: Uint8Array, from: number, to: number, buffer: ReceiveBuffer | null): void {
    if (this.#meter !== null) this.#arrivedMs = performance.now();
    this.#take(bytes, from, to, buffer);
  }

  #take(bytes: Uint8Array, from: number, to: number, buffer: ReceiveBuffer | null): void {
    if (this.#ended) return;
    this.#receiving = true;
    this.#consume(bytes, from, to, buffer);
    this.#kick();
    this.#receiving = false;
    this.#flushOut();
  }

  /** No more requests are taken; resolves when those in flight are answered. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#dropArriving();
    if (this.#requestsInFlight > 0) {
      this.#idle ??= Promise.withResolvers();
      await this.#idle.promise;
    }
    this.#flushOut();
  }

  // ── requests ───────────────────────────────────────────────────────────────────────────────────────────

  #consume(bytes: Uint8Array, from: number, to: number, buffer: ReceiveBuffer | null): void {
    let at = from;
    while (at < to && !this.#ended) {
      if (this.#payloadLeft > 0) {
        const count = Math.min(this.#payloadLeft, to - at);
        this.#takePayload(bytes, at, count, buffer);
        at += count;
      } else if (this.#refused.skipLeft > 0) {
        const count = Math.min(this.#refused.skipLeft, to - at);
        at += count;
        this.#refused.skipLeft -= count;
        if (this.#refused.skipLeft === 0)
          this.#answer(this.#refused.high, this.#refused.low, this.#refused.errno);
      } else if (this.#atLimit()) {
        this.#kick();
        if (this.#atLimit()) return this.#stall(bytes, at, to, buffer);
      } else if (this.#headerFill === 0 && to - at >= requestHeaderBytes) {
        this.#request(bytes, at);
        at += requestHeaderBytes;
      } else {
        const count = Math.min(requestHeaderBytes - this.#headerFill, to - at);
        this.#header.set(bytes.subarray(at, at + count), this.#headerFill);
        this.#headerFill += count;
        at += count;
        if (this.#headerFill === requestHeaderBytes) {
          this.#headerFill = 0;
          this.#request(this.#header, 0);
        }
      }
    }
  }

  #atLimit(): boolean {
    return (
      this.#requestsInFlight >= this.#limits.requestsInFlightMax ||
      this.#bytesInFlight >= this.#limits.bytesInFlightMax ||
      this.#unsentBytes >= this.#limits.unsentBytesMax
    );
  }

  #stall(bytes: Uint8Array, at: number, to: number, buffer: ReceiveBuffer | null): void {
    if (buffer !== null) buffer.references += 1;
    this.#stalled = { bytes, at, to, buffer, arrivedMs: this.#arrivedMs };
    this.#link.pause();
  }

  #unstall(): void {
    const stalled = this.#stalled;
    if (stalled === null || this.#receiving || this.#atLimit()) return;
    this.#stalled = null;
    this.#arrivedMs = stalled.arrivedMs;
    this.#take(stalled.bytes, stalled.at, stalled.to, stalled.buffer);
    if (stalled.buffer !== null) this.#buffers.release(stalled.buffer);
    if (this.#stalled === null) this.#link.resume();
  }

  #request(bytes: Uint8Array, at: number): void {
    if (readU32(bytes, at) !== requestMagic) return this.#hangUp();
    const flags = readU16(bytes, at + 4);
    const command = readU16(bytes, at + 6);
    const cookieHigh = readU32(bytes, at + 8);
    const cookieLow = readU32(bytes, at + 12);
    const start = readU64(bytes, at + 16);
    const length = readU32(bytes, at + 24);
    switch (command) {
      case Command.write:
        return this.#write('write', flags, cookieHigh, cookieLow, start, length);
      case Command.read:
        return this.#read(flags, cookieHigh, cookieLow, start, length);
      case Command.flush:
        return this.#flush(flags, cookieHigh, cookieLow, start, length);
      case Command.trim:
        return this.#write('trim', flags, cookieHigh, cookieLow, start, length);
      case Command.writeZeroes:
        return this.#write('zeroes', flags & ~CommandFlag.noHole, cookieHigh, cookieLow, start, length);
      case Command.blockStatus:
        return this.#blockStatus(flags, cookieHigh, cookieLow, start, length);
      case Command.disconnect:
        return this.#hangUp();
      default:
        this.#answer(cookieHigh, cookieLow, Errno.EINVAL);
    }
  }

  #hangUp(): void {
    this.#ended = true;
    this.#dropArriving();
    this.#kick();
    this.#flushOut();
    this.#link.hangUp();
  }

  #dropArriving(): void {
    if (this.#arriving === null) return;
    const write = this.#arriving;
    this.#arriving = null;
    this.#payloadLeft = 0;
    this.#recycle(write);
  }

  // ── writes ─────────────────────────────────────────────────────────────────────────────────────────────

  #write(kind: WriteKind, flags: number, high: number, low: number, start: number, length: number): void {
    const errno = this.#writeErrno(kind, flags, start, length);
    if (errno !== Errno.ok) {
      this.#meter?.failed();
      if (kind !== 'write' || length === 0) return this.#answer(high, low, errno);
      if (length > this.#limits.refusedPayloadBytesMax) return this.#hangUp();
      Object.assign(this.#refused, { skipLeft: length, high, low, errno });
      return;
    }
    const write = this.#freeWrites.pop() ?? new PooledWrite(this);
    write.kind = kind;
    write.startBytes = start;
    write.lengthBytes = length;
    write.fua = (flags & CommandFlag.fua) !== 0;
    write.cookieHigh = high;
    write.cookieLow = low;
    write.payloadCount = 0;
    write.arrivedMs = this.#arrivedMs;
    write.heldBytes = kind === 'write' ? length : 0;
    this.#requestsInFlight += 1;
    this.#bytesInFlight += write.heldBytes;
    if (kind === 'write') {
      this.#arriving = write;
      this.#payloadLeft = length;
    } else this.#submit(write);
  }

  #writeErrno(kind: WriteKind, flags: number, start: number, length: number): number {
    if (this.#device.readOnly) return Errno.EPERM;
    if ((flags & ~CommandFlag.fua) !== 0) return Errno.EINVAL;
    if (length === 0 || start % 512 !== 0 || length % 512 !== 0) return Errno.EINVAL;
    if (kind === 'write' && length > this.#limits.requestBytesMax) return Errno.EOVERFLOW;
    if (start + length > this.#device.sizeBytes) return kind === 'trim' ? Errno.EINVAL : Errno.ENOSPC;
    return Errno.ok;
  }

  #takePayload(bytes: Uint8Array, at: number, count: number, buffer: ReceiveBuffer | null): void {
    const write = this.#arriving!;
    write.payload[write.payloadCount] = new Uint8Array(bytes.buffer, bytes.byteOffset + at, count);
    write.buffers[write.payloadCount] = buffer;
    write.payloadCount += 1;
    if (buffer !== null) buffer.references += 1;
    this.#payloadLeft -= count;
    if (this.#payloadLeft > 0) return;
    this.#arriving = null;
    this.#submit(write);
  }

  #submit(write: PooledWrite): void {
    this.#device.submit(write);
    this.#submitted = true;
  }

  #kick(): void {
    if (!this.#submitted) return;
    this.#submitted = false;
    this.#answeredMs = 0;
    this.#device.kick();
  }

  /** For PooledWrite only: the device is done with it. */
  written(write: PooledWrite, errno: number): void {
    if (this.#meter !== null) this.#measure(this.#meter, write, errno);
    this.#answer(write.cookieHigh, write.cookieLow, errno);
    this.#recycle(write);
  }

  /** What is answered together is answered at one time: the clock is asked once for all of it. */
  #measure(meter: RequestMeter, write: PooledWrite, errno: number): void {
    if (errno !== Errno.ok) return meter.failed();
    if (this.#answeredMs === 0) this.#answeredMs = performance.now();
    meter.wrote(write.heldBytes, (this.#answeredMs - write.arrivedMs) / 1000);
  }

  #recycle(write: PooledWrite): void {
    for (let i = 0; i < write.payloadCount; i += 1) {
      const buffer = write.buffers[i];
      if (buffer !== null && buffer !== undefined) this.#buffers.release(buffer);
      write.buffers[i] = null;
    }
    // Large requests leave long lists behind: let those go.
    if (write.payload.length > 64) {
      write.payload.length = 0;
      write.buffers.length = 0;
    }
    write.payloadCount = 0;
    this.#freeWrites.push(write);
    this.#done(write.heldBytes);
  }

  #done(bytes: number): void {
    this.#requestsInFlight -= 1;
    this.#bytesInFlight -= bytes;
    if (this.#requestsInFlight === 0) this.#idle?.resolve();
    if (this.#stalled !== null) setImmediate(() => this.#unstall());
  }

  // ── reads ──────────────────────────────────────────────────────────────────────────────────────────────

  #read(flags: number, high: number, low: number, start: number, length: number): void {
    const errno = this.#readErrno(flags & ~CommandFlag.df, start, length);
    if (errno !== Errno.ok) return this.#readRefused(high, low, errno);
    if (length > this.#limits.requestBytesMax) return this.#readRefused(high, low, Errno.EOVERFLOW);
    // A read sees the writes that came before it: most clients rely on it.
    this.#kick();
    if (length <= SYNCHRONOUS_READ_BYTES_MAX && this.#readNow(high, low, start, length)) return;
    this.#requestsInFlight += 1;
    this.#bytesInFlight += length;
    void this.#readLater(high, low, start, length);
  }

  #readErrno(flags: number, start: number, length: number): number {
    if (flags !== 0 || length === 0 || start % 512 !== 0 || length % 512 !== 0) return Errno.EINVAL;
    return start + length > this.#device.sizeBytes ? Errno.EINVAL : Errno.ok;
  }

  #readRefused(high: number, low: number, errno: number): void {
    if (!this.#structured) return this.#answer(high, low, errno);
    const bytes = this.#reserve(26);
    structuredHeader(bytes, this.#outFill, Chunk.done, Chunk.error, high, low, 6);
    setU32(bytes, this.#outFill + 20, errno);
    bytes[this.#outFill + 24] = 0;
    bytes[this.#outFill + 25] = 0;
    this.#outFill += 26;
    this.#scheduleOut();
  }

  #readNow(high: number, low: number, start: number, length: number): boolean {
    const headerBytes = this.#structured ? READ_CHUNK_BYTES : SIMPLE_REPLY_BYTES;
    const out = this.#reserve(headerBytes + length);
    const at = this.#outFill;
    try {
      if (!this.#device.tryRead(start, length, out, at + headerBytes)) return false;
    } catch (error) {
      this.#readRefused(high, low, errnoOf(error));
      return true;
    }
    this.#readHeader(out, at, high, low, start, length);
    this.#outFill = at + headerBytes + length;
    this.#scheduleOut();
    return true;
  }

  async #readLater(high: number, low: number, start: number, length: number): Promise<void> {
    const headerBytes = this.#structured ? READ_CHUNK_BYTES : SIMPLE_REPLY_BYTES;
    const bytes = new Uint8Array(headerBytes + length);
    try {
      await this.#device.read(start, length, bytes, headerBytes);
      this.#readHeader(bytes, 0, high, low, start, length);
      this.#flushOut();
      this.#send(bytes, () => {});
    } catch (error) {
      this.#readRefused(high, low, errnoOf(error));
    }
    this.#done(length);
  }

  #readHeader(out: Uint8Array, at: number, high: number, low: number, start: number, length: number): void {
    if (!this.#structured) return simpleHeader(out, at, Errno.ok, high, low);
    structuredHeader(out, at, Chunk.done, Chunk.offsetData, high, low, 8 + length);
    setU64(out, at + 20, start);
  }

  // ── flush and block status ─────────────────────────────────────────────────────────────────────────────

  #flush(flags: number, high: number, low: number, start: number, length: number): void {
    if (flags !== 0 || start !== 0 || length !== 0) return this.#answer(high, low, Errno.EINVAL);
    this.#kick();
    this.#requestsInFlight += 1;
    const arrivedMs = this.#arrivedMs;
    this.#device.flush().then(
      () => {
        this.#meter?.flushed((performance.now() - arrivedMs) / 1000);
        this.#finish(high, low, Errno.ok);
      },
      (error: unknown) => this.#finish(high, low, errnoOf(error)),
    );
  }

  #finish(high: number, low: number, errno: number): void {
    this.#answer(high, low, errno);
    this.#done(0);
  }

  #blockStatus(flags: number, high: number, low: number, start: number, length: number): void {
    const errno =
      this.#allocation || this.#contexts.length > 0
        ? this.#readErrno(flags & ~CommandFlag.reqOne, start, length)
        : Errno.EINVAL;
    if (errno !== Errno.ok) return this.#readRefused(high, low, errno);
    this.#kick();
    this.#requestsInFlight += 1;
    void this.#statusLater((flags & CommandFlag.reqOne) !== 0, high, low, start, length);
  }

  async #statusLater(one: boolean, high: number, low: number, start: number, length: number): Promise<void> {
    const extentsMax = one ? 1 : this.#limits.blockStatusExtentsMax;
    try {
      const chunks: { id: number; extents: ContextExtent[] }[] = [];
      if (this.#allocation) {
        const extents = await this.#device.allocation(start, length, extentsMax);
        chunks.push({
          id: allocationContextId,
          extents: extents.map(({ lengthBytes, hole }) => ({
            lengthBytes,
            flags: hole ? Status.hole | Status.zero : 0,
          })),
        });
      }
      for (const [i, context] of this.#contexts.entries()) {
        const extents = await context.blockStatus(start, length, extentsMax);
        chunks.push({ id: allocationContextId + 1 + i, extents });
      }
      this.#flushOut();
      this.#send(statusReply(chunks, high, low), () => {});
    } catch (error) {
      this.#readRefused(high, low, errnoOf(error));
    }
    this.#done(0);
  }

  // ── replies ────────────────────────────────────────────────────────────────────────────────────────────

  #answer(high: number, low: number, errno: number): void {
    const out = this.#reserve(SIMPLE_REPLY_BYTES);
    simpleHeader(out, this.#outFill, errno, high, low);
    this.#outFill += SIMPLE_REPLY_BYTES;
    this.#scheduleOut();
  }

  /** Room for `count` bytes at `#outFill` of the buffer returned. */
  #reserve(count: number): Uint8Array {
    if (this.#outFill + count > this.#out.length) this.#flushOut();
    return this.#out;
  }

  /** Inside `receive` replies gather until its end; outside those of one turn go together. */
  #scheduleOut(): void {
    if (this.#receiving || this.#outScheduled) return;
    this.#outScheduled = true;
    queueMicrotask(() => {
      this.#outScheduled = false;
      this.#flushOut();
    });
  }

  #flushOut(): void {
    this.#answeredMs = 0;
    if (this.#outFill === 0) return;
    const out = this.#out;
    const bytes = out.subarray(0, this.#outFill);
    this.#out = this.#freeOut.pop() ?? new Uint8Array(OUT_BYTES);
    this.#outFill = 0;
    this.#send(bytes, () => {
      if (this.#freeOut.length < OUT_POOLED_MAX) this.#freeOut.push(out);
    });
  }

  #send(bytes: Uint8Array, sent: () => void): void {
    this.#unsentBytes += bytes.length;
    this.#link.send(bytes, () => {
      this.#unsentBytes -= bytes.length;
      sent();
      this.#unstall();
    });
  }
}

/** A guest's write on its way through the device; reused. */
class PooledWrite implements WriteCommand {
  kind: WriteKind = 'write';
  startBytes = 0;
  lengthBytes = 0;
  fua = false;
  payload: Uint8Array[] = [];
  payloadCount = 0;
  readonly buffers: (ReceiveBuffer | null)[] = [];
  cookieHigh = 0;
  cookieLow = 0;
  arrivedMs = 0;
  heldBytes = 0;
  readonly #transmission: Transmission;

  constructor(transmission: Transmission) {
    this.#transmission = transmission;
  }

  complete(errno: number): void {
    this.#transmission.written(this, errno);
  }
}

function simpleHeader(bytes: Uint8Array, at: number, errno: number, high: number, low: number): void {
  setU32(bytes, at, simpleReplyMagic);
  setU32(bytes, at + 4, errno);
  setU32(bytes, at + 8, high);
  setU32(bytes, at + 12, low);
}

function structuredHeader(
  bytes: Uint8Array,
  at: number,
  flags: number,
  type: number,
  high: number,
  low: number,
  length: number,
): void {
  setU32(bytes, at, structuredReplyMagic);
  setU16(bytes, at + 4, flags);
  setU16(bytes, at + 6, type);
  setU32(bytes, at + 8, high);
  setU32(bytes, at + 12, low);
  setU32(bytes, at + 16, length);
}

/** One chunk per context; the last ends the reply. */
function statusReply(
  chunks: readonly { id: number; extents: readonly ContextExtent[] }[],
  high: number,
  low: number,
): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, { extents }) => sum + 24 + extents.length * 8, 0));
  let at = 0;
  for (const [i, { id, extents }] of chunks.entries()) {
    const flags = i === chunks.length - 1 ? Chunk.done : 0;
    structuredHeader(bytes, at, flags, Chunk.blockStatus, high, low, 4 + extents.length * 8);
    setU32(bytes, at + 20, id);
    at += 24;
    for (const extent of extents) {
      setU32(bytes, at, extent.lengthBytes);
      setU32(bytes, at + 4, extent.flags);
      at += 8;
    }
  }
  return bytes;
}
