// The transmission of one connection on the client's side, without its socket: requests in, bytes out, and back.
// Requests are split to what the server takes, pipelined up to the limits, and answered once. A server that breaks
// the protocol ends the connection; whatever it sends, no more is kept than the limits say.
import { MidmirrorError } from '@midmirror/basis';
import { Errno } from '@midmirror/block-device';
import { printable, readU16, readU32, readU64, setU16, setU32, setU64 } from './bytes.ts';
import type { RemoteFacts } from './client-handshake.ts';
import { type ClientRequest, Part } from './client-request.ts';
import type { NbdClientLimits } from './limits.ts';
import {
  Chunk,
  Command,
  requestHeaderBytes,
  requestMagic,
  simpleReplyMagic,
  structuredReplyMagic,
} from './protocol.ts';

export interface ClientLink {
  /** Takes the pieces, which stay as they are until `sent`. */
  send(pieces: readonly Uint8Array[], sent: () => void): void;
  /** The connection has ended, by `end` or because the server broke the protocol. Called before requests fail. */
  ended(error: MidmirrorError): void;
}

const OUT_BYTES = 128 << 10;
/** Smaller pieces are copied behind their header: a slice of its own costs more than that. */
const SLICE_BYTES_MIN = 16 << 10;
const OUT_POOLED_MAX = 4;
const SIMPLE_BYTES = 16;
const CHUNK_BYTES = 20;

export class ClientTransmission {
  readonly #link: ClientLink;
  readonly #facts: RemoteFacts;
  readonly #limits: NbdClientLimits;

  readonly #parts: Part[] = [];
  readonly #free: Part[] = [];
  #bytesInFlight = 0;
  readonly #waiting: ClientRequest[] = [];
  /** Of `#waiting`: those before it are sent. */
  #waitingFrom = 0;
  #over: MidmirrorError | null = null;

  #out: Uint8Array = new Uint8Array(OUT_BYTES);
  #outFrom = 0;
  #outFill = 0;
  readonly #freeOut: Uint8Array[] = [];
  #pieces: Uint8Array[] = [];
  #fullOuts: Uint8Array[] = [];
  /** Requests whose data stands among the pieces as it is. */
  #slicedOf: ClientRequest[] = [];
  /** Answered before all their data is out: not done, for their data is still read. */
  readonly #answeredEarly = new Set<ClientRequest>();

  readonly #head = new Uint8Array(CHUNK_BYTES + 12);
  #headFill = 0;
  #headNeed = SIMPLE_BYTES;
  /** What is being received after a head: the data of a read, or the rest of another chunk. */
  #part: Part | null = null;
  #lastChunk = true;
  #payloadAt = 0;
  #payloadLeft = 0;
  #body: Uint8Array | null = null;
  #bodyFill = 0;

  constructor(link: ClientLink, facts: RemoteFacts, limits: NbdClientLimits) {
    this.#link = link;
    this.#facts = facts;
    this.#limits = limits;
  }

  get requestsInFlight(): number {
    return this.#parts.length - this.#free.length;
  }

  /** Queues a request until `kick`. */
  submit(request: ClientRequest): void {
    request.begin();
    if (this.#over !== null) this.#refuse(request, Errno.ESHUTDOWN, this.#over.message);
    else if (this.#waiting.length - this.#waitingFrom >= this.#limits.requestsWaitingMax)
      this.#refuse(request, Errno.ENOMEM, 'too many requests wait for the NBD server');
    else this.#waiting.push(request);
  }

  kick(): void {
    if (this.#over !== null) return;
    while (this.#waitingFrom < this.#waiting.length) {
      const request = this.#waiting[this.#waitingFrom]!;
      const length = Math.min(request.lengthBytes - request.sentBytes, this.#partBytesMax(request.command));
      if (!this.#sendPart(request, length)) break;
      if (request.sentBytes < request.lengthBytes) continue;
      this.#waitingFrom += 1;
    }
    if (this.#waitingFrom === this.#waiting.length || this.#waitingFrom > 1024) {
      this.#waiting.splice(0, this.#waitingFrom);
      this.#waitingFrom = 0;
    }
    this.#flushOut();
  }

  /** `bytes[from, to)` has arrived; it is not needed afterwards. */
  receive(bytes: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to && this.#over === null; ) {
      if (this.#payloadLeft > 0) at += this.#takePayload(bytes, at, to);
      else if (this.#body !== null) at += this.#takeBody(this.#body, bytes, at, to);
      else at += this.#takeHead(bytes, at, to);
    }
    this.kick();
  }

  /** The connection is no more. Every request that is not answered fails. */
  end(error: MidmirrorError): void {
    if (this.#over !== null) return;
    this.#over = error;
    this.#link.ended(error);
    const requests = new Set(this.#answeredEarly);
    for (const { request } of this.#parts) if (request !== null) requests.add(request);
    for (const request of this.#waiting.slice(this.#waitingFrom)) requests.add(request);
    this.#answeredEarly.clear();
    this.#waiting.length = 0;
    for (const request of requests) this.#refuse(request, Errno.ESHUTDOWN, error.message);
  }

  // ── requests ───────────────────────────────────────────────────────────────────────────────────────────

  #refuse(request: ClientRequest, errno: number, message: string): void {
    request.fail(errno, message);
    request.done(request);
  }

  #partBytesMax(command: number): number {
    if (command === Command.read || command === Command.write) return this.#facts.requestBytesMax;
    return command === Command.blockStatus ? Number.POSITIVE_INFINITY : this.#limits.zeroesBytesMax;
  }

  /** False: it has to wait for answers. */
  #sendPart(request: ClientRequest, length: number): boolean {
    const { command } = request;
    const held = command === Command.read || command === Command.write ? length : 0;
    const over = this.#bytesInFlight + held > this.#limits.bytesInFlightMax && this.#bytesInFlight > 0;
    if (over || this.requestsInFlight >= this.#limits.requestsInFlightMax) return false;
    const part = this.#free.pop() ?? this.#newPart();
    part.begin(request, length, held);
    this.#bytesInFlight += held;
    request.partsInFlight += 1;
    request.sentBytes += length;
    const at = this.#room(requestHeaderBytes);
    const out = this.#out;
    setU32(out, at, requestMagic);
    setU16(out, at + 4, request.flags);
    setU16(out, at + 6, command);
    setU32(out, at + 8, part.uses);
    setU32(out, at + 12, part.slot);
    setU64(out, at + 16, part.startBytes);
    setU32(out, at + 24, length);
    if (command === Command.write) request.takePayload(length, (slice) => this.#payload(request, slice));
    return true;
  }

  #newPart(): Part {
    const part = new Part(this.#parts.length);
    this.#parts.push(part);
    return part;
  }

  #payload(request: ClientRequest, slice: Uint8Array): void {
    if (slice.length < SLICE_BYTES_MIN) {
      const at = this.#room(slice.length);
      this.#out.set(slice, at);
      return;
    }
    this.#closePiece();
    this.#pieces.push(slice);
    if (this.#slicedOf.at(-1) === request) return;
    this.#slicedOf.push(request);
    request.unsentBatches += 1;
  }

  /** Where `count` bytes of `#out` may be written. */
  #room(count: number): number {
    if (this.#outFill + count > this.#out.length) {
      this.#closePiece();
      this.#fullOuts.push(this.#out);
      this.#out = this.#freeOut.pop() ?? new Uint8Array(OUT_BYTES);
      this.#outFrom = this.#outFill = 0;
    }
    const at = this.#outFill;
    this.#outFill += count;
    return at;
  }

  #closePiece(): void {
    if (this.#outFill > this.#outFrom) this.#pieces.push(this.#out.subarray(this.#outFrom, this.#outFill));
    this.#outFrom = this.#outFill;
  }

  #flushOut(): void {
    this.#closePiece();
    if (this.#pieces.length === 0) return;
    const pieces = this.#pieces;
    const outs = [...this.#fullOuts, this.#out];
    const sliced = this.#slicedOf;
    this.#pieces = [];
    this.#fullOuts = [];
    this.#slicedOf = [];
    this.#out = this.#freeOut.pop() ?? new Uint8Array(OUT_BYTES);
    this.#outFrom = this.#outFill = 0;
    this.#link.send(pieces, () => {
      for (const out of outs) if (this.#freeOut.length < OUT_POOLED_MAX) this.#freeOut.push(out);
      if (this.#over !== null) return;
      for (const request of sliced) {
        request.unsentBatches -= 1;
        this.#finish(request);
      }
    });
  }

  // ── replies ────────────────────────────────────────────────────────────────────────────────────────────

  #broken(what: string): void {
    this.end(new MidmirrorError('io', `the NBD server ${what}`));
  }

  #takeHead(bytes: Uint8Array, at: number, to: number): number {
    const count = Math.min(this.#headNeed - this.#headFill, to - at);
    for (let i = 0; i < count; i += 1) this.#head[this.#headFill + i] = bytes[at + i]!;
    this.#headFill += count;
    if (this.#headFill < this.#headNeed) return count;
    if (this.#headNeed === SIMPLE_BYTES) this.#reply();
    else if (this.#headNeed === CHUNK_BYTES) this.#chunk();
    else this.#place();
    return count;
  }

  /** Receives `count` more bytes of head; none: what comes next is not a head, or a new one. */
  #needHead(count: number): void {
    if (count === 0) {
      this.#headFill = 0;
      this.#headNeed = SIMPLE_BYTES;
    } else this.#headNeed += count;
  }

  #reply(): void {
    const magic = readU32(this.#head, 0);
    if (magic === simpleReplyMagic) this.#simple();
    else if (magic !== structuredReplyMagic) this.#broken('sends a reply without its magic');
    else if (!this.#facts.structured) this.#broken('sends a structured reply, which was not agreed on');
    else this.#needHead(CHUNK_BYTES - SIMPLE_BYTES);
  }

  #partAsked(): Part | null {
    const part = this.#parts[readU32(this.#head, 12)];
    if (part?.request != null && part.uses === readU32(this.#head, 8)) return part;
    this.#broken('answers a request that was not sent, or is answered already');
    return null;
  }

  #simple(): void {
    const errno = readU32(this.#head, 4);
    const part = this.#partAsked();
    if (part === null) return;
    this.#needHead(0);
    this.#lastChunk = true;
    if (errno !== Errno.ok) this.#failPart(part, errno, '');
    else if (
      part.command === Command.blockStatus ||
      (part.command === Command.read && this.#facts.structured)
    )
      return this.#broken('answers with a simple reply where only a structured one can');
    else if (part.command === Command.read)
      return this.#beginPayload(part, part.startBytes, part.lengthBytes);
    this.#finishPart(part);
  }

  #chunk(): void {
    const type = readU16(this.#head, 6);
    const length = readU32(this.#head, 16);
    const part = this.#partAsked();
    if (part === null) return;
    this.#part = part;
    this.#lastChunk = (readU16(this.#head, 4) & Chunk.done) !== 0;
    const { command } = part;
    if ((type & Chunk.errorBit) !== 0 && length >= 6 && length <= this.#limits.errorBytesMax)
      this.#body = new Uint8Array(length);
    else if (type === Chunk.none && length === 0 && this.#lastChunk) this.#endChunk(part);
    else if (type === Chunk.offsetData && command === Command.read && length > 8) this.#needHead(8);
    else if (type === Chunk.offsetHole && command === Command.read && length === 12) this.#needHead(12);
    else if (type === Chunk.blockStatus && command === Command.blockStatus && this.#statusLength(length))
      this.#body = new Uint8Array(length);
    else this.#broken(`answers command ${command} with a chunk of type ${type} and ${length} bytes`);
  }

  #statusLength(length: number): boolean {
    return length >= 12 && length % 8 === 4 && length <= this.#limits.blockStatusBytesMax;
  }

  /** The head of a piece of a read is here: data that follows, or a hole. */
  #place(): void {
    const part = this.#part!;
    const hole = readU16(this.#head, 6) === Chunk.offsetHole;
    const start = readU64(this.#head, 20);
    const length = hole ? readU32(this.#head, 28) : readU32(this.#head, 16) - 8;
    this.#needHead(0);
    if (!hole) return this.#beginPayload(part, start, length);
    if (!this.#cover(part, start, length)) return;
    const { target, targetOffset, startBytes } = part.request!;
    const at = targetOffset + start - startBytes;
    target.fill(0, at, at + length);
    this.#endChunk(part);
  }

  #cover(part: Part, start: number, length: number): boolean {
    if (length === 0 || !part.cover(start, length))
      this.#broken('answers a read with bytes that were not asked for, or have come already');
    else if (part.gapCount > this.#limits.readGapsMax)
      this.#broken('answers a read in too many scattered pieces');
    return this.#over === null;
  }

  #beginPayload(part: Part, start: number, length: number): void {
    if (!this.#cover(part, start, length)) return;
    const { targetOffset, startBytes } = part.request!;
    this.#part = part;
    this.#payloadAt = targetOffset + start - startBytes;
    this.#payloadLeft = length;
  }

  #takePayload(bytes: Uint8Array, at: number, to: number): number {
    const count = Math.min(this.#payloadLeft, to - at);
    this.#part!.request!.target.set(bytes.subarray(at, at + count), this.#payloadAt);
    this.#placed(count);
    return count;
  }

  #placed(count: number): void {
    this.#payloadAt += count;
    this.#payloadLeft -= count;
    if (this.#payloadLeft === 0) this.#endChunk(this.#part!);
  }

  #takeBody(body: Uint8Array, bytes: Uint8Array, at: number, to: number): number {
    const count = Math.min(body.length - this.#bodyFill, to - at);
    body.set(bytes.subarray(at, at + count), this.#bodyFill);
    this.#bodyFill += count;
    if (this.#bodyFill < body.length) return count;
    this.#body = null;
    this.#bodyFill = 0;
    const part = this.#part!;
    const right = part.command === Command.blockStatus && readU16(this.#head, 6) === Chunk.blockStatus;
    if (right) this.#status(part, body);
    else this.#error(part, body);
    return count;
  }

  #error(part: Part, body: Uint8Array): void {
    const messageBytes = readU16(body, 4);
    if (messageBytes > body.length - 6)
      return this.#broken('sends an error whose message is longer than itself');
    this.#failPart(part, readU32(body, 0), printable(body.subarray(6, 6 + messageBytes)));
    this.#endChunk(part);
  }

  #status(part: Part, body: Uint8Array): void {
    const id = readU32(body, 0);
    const all = part.request!.extents!;
    if (!this.#facts.contexts.has(id) || all.has(id))
      return this.#broken('tells the status of blocks in a context that was not asked for, or twice');
    const extents: { lengthBytes: number; flags: number }[] = [];
    let left = part.lengthBytes;
    for (let at = 4; at < body.length && left > 0; at += 8) {
      const lengthBytes = readU32(body, at);
      if (lengthBytes === 0) return this.#broken('tells the status of no blocks');
      // The last one may reach past what was asked.
      extents.push({ lengthBytes: Math.min(lengthBytes, left), flags: readU32(body, at + 4) });
      left -= lengthBytes;
    }
    all.set(id, extents);
    this.#endChunk(part);
  }

  #failPart(part: Part, errno: number, message: string): void {
    part.failed = true;
    part.request!.fail(errno === Errno.ok ? Errno.EIO : errno, message);
  }

  #endChunk(part: Part): void {
    this.#needHead(0);
    if (this.#lastChunk) this.#finishPart(part);
  }

  #finishPart(part: Part): void {
    const request = part.request!;
    if (!part.failed && part.command === Command.read && !part.complete)
      return this.#broken('ends its answer to a read without all of its bytes');
    if (!part.failed && request.extents !== null && request.extents.size < this.#facts.contexts.size)
      return this.#broken('ends its answer to a block status without all of its contexts');
    part.request = null;
    this.#free.push(part);
    this.#bytesInFlight -= part.heldBytes;
    request.partsInFlight -= 1;
    this.#finish(request);
  }

  #finish(request: ClientRequest): void {
    if (request.partsInFlight > 0 || request.sentBytes < request.lengthBytes) return;
    if (request.unsentBatches > 0) {
      this.#answeredEarly.add(request);
      return;
    }
    this.#answeredEarly.delete(request);
    request.done(request);
  }
}
