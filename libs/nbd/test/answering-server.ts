// The server's side of a transmission in memory: executes requests on a naive disk when they arrive, and answers
// them in any order, in any of the shapes that the protocol allows.
import type { SeededRandom } from '@midmirror/basis';
import { u16, u32, u64 } from './wire.ts';

const DONE = 1;

export interface AnsweringOptions {
  structured: boolean;
  /** Ids of the contexts that were selected. */
  contexts: readonly number[];
  /** The share of requests that fail. */
  failing: number;
}

export class AnsweringServer {
  readonly disk: Buffer;
  /** Command and length of each request, as they came. */
  readonly requests: { command: number; flags: number; start: number; length: number }[] = [];
  readonly #random: SeededRandom;
  readonly #options: AnsweringOptions;
  #input = Buffer.alloc(0);
  /** Answers not yet given, each in chunks that must keep their order only as far as its last one. */
  readonly #answers: Buffer[][] = [];

  constructor(sizeBytes: number, random: SeededRandom, options: AnsweringOptions) {
    this.disk = Buffer.alloc(sizeBytes);
    this.#random = random;
    this.#options = options;
  }

  take(bytes: Uint8Array): void {
    this.#input = Buffer.concat([this.#input, bytes]);
    while (this.#input.length >= 28) {
      const flags = this.#input.readUInt16BE(4);
      const command = this.#input.readUInt16BE(6);
      const cookie = this.#input.subarray(8, 16);
      const start = Number(this.#input.readBigUInt64BE(16));
      const length = this.#input.readUInt32BE(24);
      const end = 28 + (command === 1 ? length : 0);
      if (this.#input.readUInt32BE(0) !== 0x25609513) throw new Error('a request without its magic');
      if (this.#input.length < end) return;
      const data = Buffer.from(this.#input.subarray(28, end));
      const copied = Buffer.from(cookie);
      this.#input = this.#input.subarray(end);
      this.requests.push({ command, flags, start, length });
      this.#answers.push(this.#answer(command, copied, start, length, data));
    }
  }

  get pending(): number {
    return this.#answers.length;
  }

  /** The next bytes, of any pending answer. */
  next(): Buffer {
    const at = this.#random.below(this.#answers.length);
    const [chunk] = this.#answers[at]!.splice(0, 1);
    if (this.#answers[at]!.length === 0) this.#answers.splice(at, 1);
    return chunk!;
  }

  #answer(command: number, cookie: Buffer, start: number, length: number, data: Buffer): Buffer[] {
    if (this.#random.chance(this.#options.failing)) return this.#error(command, cookie, start);
    if (command === 1) data.copy(this.disk, start);
    if (command === 4 || command === 6) this.disk.fill(0, start, start + length);
    if (command === 0) return this.#read(cookie, start, length);
    if (command === 7) return this.#status(cookie, length);
    const chunked = this.#options.structured && this.#random.chance(0.3);
    return [chunked ? chunk(DONE, 0, cookie) : simple(0, cookie)];
  }

  #error(command: number, cookie: Buffer, start: number): Buffer[] {
    const mustBeChunk = command === 0 || command === 7;
    if (!this.#options.structured || (!mustBeChunk && this.#random.chance(0.5))) return [simple(28, cookie)];
    const message = Buffer.from('the disk is full');
    const body = Buffer.concat([u32(28), u16(message.length), message]);
    if (this.#random.chance(0.5)) return [chunk(DONE, 0x8001, cookie, body)];
    // The error and the end may be told apart; an error may come with its place.
    return [chunk(0, 0x8002, cookie, body, u64(BigInt(start))), chunk(DONE, 0, cookie)];
  }

  #read(cookie: Buffer, start: number, length: number): Buffer[] {
    const data = Buffer.from(this.disk.subarray(start, start + length));
    if (!this.#options.structured) return [Buffer.concat([simple(0, cookie), data])];
    const chunks: Buffer[] = [];
    for (let at = 0; at < length; ) {
      const count = Math.min(length - at, 1 + this.#random.below(length));
      const piece = data.subarray(at, at + count);
      const place = u64(BigInt(start + at));
      if (piece.every((byte) => byte === 0) && this.#random.chance(0.7))
        chunks.push(chunk(0, 2, cookie, place, u32(count)));
      else chunks.push(chunk(0, 1, cookie, place, piece));
      at += count;
    }
    for (let i = chunks.length - 1; i > 0 && this.#random.chance(0.8); i -= 1) {
      const j = this.#random.below(i + 1);
      [chunks[i], chunks[j]] = [chunks[j]!, chunks[i]!];
    }
    if (this.#random.chance(0.5)) chunks.push(chunk(DONE, 0, cookie));
    else chunks.at(-1)!.writeUInt16BE(DONE, 4);
    return chunks;
  }

  #status(cookie: Buffer, length: number): Buffer[] {
    const ids = [...this.#options.contexts].sort(() => this.#random.below(3) - 1);
    const chunks = ids.map((id) => chunk(0, 5, cookie, u32(id), u32(512), u32(id), u32(length), u32(id + 1)));
    chunks.at(-1)!.writeUInt16BE(DONE, 4);
    return chunks;
  }
}

function simple(errno: number, cookie: Buffer): Buffer {
  return Buffer.concat([u32(0x67446698), u32(errno), cookie]);
}

function chunk(flags: number, type: number, cookie: Buffer, ...body: Buffer[]): Buffer {
  const length = body.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([u32(0x668e33ef), u16(flags), u16(type), cookie, u32(length), ...body]);
}
