// Takes exact counts of bytes from a stream of chunks of any size. Keeps no more than the chunk under way.

export class EndOfBytes extends Error {}

export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #takenBytes = 0;
  #ended = false;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** At least 1 byte, at most `bytesMax`, as part of the chunk that came; empty: the stream has ended. */
  async some(bytesMax: number): Promise<Uint8Array> {
    while (this.#chunk.length === 0) {
      if (this.#ended) return this.#chunk;
      const next = await this.#chunks.next();
      if (next.done) this.#ended = true;
      else this.#chunk = next.value;
    }
    const part = this.#chunk.subarray(0, bytesMax);
    this.#chunk = this.#chunk.subarray(part.length);
    this.#takenBytes += part.length;
    return part;
  }

  /** Fills `target`. Throws EndOfBytes. */
  async fill(target: Uint8Array): Promise<void> {
    const had = await this.fillSome(target);
    if (had < target.length) throw new EndOfBytes(`the stream ends at byte ${this.#takenBytes}`);
  }

  /** As `fill`, but the stream may end: how much it had. */
  async fillSome(target: Uint8Array): Promise<number> {
    let had = 0;
    while (had < target.length) {
      const part = await this.some(target.length - had);
      if (part.length === 0) break;
      target.set(part, had);
      had += part.length;
    }
    return had;
  }

  /** Throws EndOfBytes. */
  async exactly(bytes: number): Promise<Buffer> {
    const target = Buffer.allocUnsafeSlow(bytes);
    await this.fill(target);
    return target;
  }

  /** Puts bytes back in front; the next that are taken. */
  putBack(bytes: Uint8Array): void {
    this.#takenBytes -= bytes.length;
    this.#chunk = this.#chunk.length === 0 ? bytes : Buffer.concat([bytes, this.#chunk]);
  }

  /** What is left, as chunks. */
  async *rest(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        const part = await this.some(Number.MAX_SAFE_INTEGER);
        if (part.length === 0) return;
        yield part;
      }
    } finally {
      await this.close();
    }
  }

  /** The source is told that no more is wanted. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#chunk = new Uint8Array(0);
    await this.#chunks.return?.();
  }
}
