// What a caller wants of a remote export, and its parts: the requests on the wire that it becomes. One request is
// one part unless the server takes less at once.
import { type ContextExtent, Errno } from '@midmirror/block-device';

const NO_BYTES = new Uint8Array(0);

/** Reused: whoever submits one may change it again once it is done. */
export class ClientRequest {
  command = 0;
  flags = 0;
  startBytes = 0;
  lengthBytes = 0;
  /** Of a write: the data, in pieces. Untouched until the request is done. */
  payload: readonly Uint8Array[] = [];
  /** Of a read. */
  target: Uint8Array = NO_BYTES;
  targetOffset = 0;
  /** Of block status: what each context answers. */
  extents: Map<number, ContextExtent[]> | null = null;

  errno: number = Errno.ok;
  /** What the server, or the connection's end, says of an error. */
  message = '';
  readonly done: (request: ClientRequest) => void;

  /** Bytes of it that parts have been made of. */
  sentBytes = 0;
  partsInFlight = 0;
  /** Batches not yet out that hold slices of its data. */
  unsentBatches = 0;
  #piece = 0;
  #pieceOffset = 0;

  constructor(done: (request: ClientRequest) => void) {
    this.done = done;
  }

  begin(): void {
    this.errno = Errno.ok;
    this.message = '';
    this.sentBytes = 0;
    this.partsInFlight = 0;
    this.unsentBatches = 0;
    this.#piece = 0;
    this.#pieceOffset = 0;
  }

  /** The first of several errors counts. */
  fail(errno: number, message: string): void {
    if (this.errno !== Errno.ok) return;
    this.errno = errno;
    this.message = message;
  }

  /** The next `count` bytes of the data, piece by piece. */
  takePayload(count: number, each: (slice: Uint8Array) => void): void {
    for (let left = count; left > 0; ) {
      const piece = this.payload[this.#piece]!;
      const length = Math.min(left, piece.length - this.#pieceOffset);
      each(piece.subarray(this.#pieceOffset, this.#pieceOffset + length));
      left -= length;
      this.#pieceOffset += length;
      if (this.#pieceOffset === piece.length) {
        this.#piece += 1;
        this.#pieceOffset = 0;
      }
    }
  }
}

/** One request on the wire. Each has a slot; the cookie is the slot and how often it has been used. */
export class Part {
  request: ClientRequest | null = null;
  readonly slot: number;
  uses = 0;
  command = 0;
  startBytes = 0;
  lengthBytes = 0;
  /** Data that it carries either way. */
  heldBytes = 0;
  failed = false;
  /** Of a read: starts and ends, in turn, of what is still to come. */
  readonly #gaps: number[] = [];

  constructor(slot: number) {
    this.slot = slot;
  }

  begin(request: ClientRequest, lengthBytes: number, heldBytes: number): void {
    this.request = request;
    this.command = request.command;
    this.startBytes = request.startBytes + request.sentBytes;
    this.lengthBytes = lengthBytes;
    this.heldBytes = heldBytes;
    this.uses = (this.uses + 1) >>> 0;
    this.failed = false;
    this.#gaps.length = 0;
    this.#gaps.push(this.startBytes, this.startBytes + lengthBytes);
  }

  get complete(): boolean {
    return this.#gaps.length === 0;
  }

  get gapCount(): number {
    return this.#gaps.length / 2;
  }

  /** Notes that `[start, start + length)` comes now; false: it was not asked for, or has come before. */
  cover(start: number, length: number): boolean {
    const gaps = this.#gaps;
    const end = start + length;
    for (let i = 0; i < gaps.length; i += 2) {
      const [from, to] = [gaps[i]!, gaps[i + 1]!];
      if (start < from || end > to) continue;
      const left = [...(start > from ? [from, start] : []), ...(end < to ? [end, to] : [])];
      gaps.splice(i, 2, ...left);
      return true;
    }
    return false;
  }
}
