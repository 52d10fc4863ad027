// What is kept of a check's output: its beginning and its end. The rest is counted.

export class KeptOutput {
  readonly #headMax: number;
  readonly #tailMax: number;
  readonly #head: Buffer[] = [];
  #headBytes = 0;
  #tail: Buffer[] = [];
  #tailBytes = 0;
  #totalBytes = 0;

  constructor(keptBytesMax: number) {
    this.#headMax = Math.ceil(keptBytesMax / 2);
    this.#tailMax = keptBytesMax - this.#headMax;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  get isCut(): boolean {
    return this.#totalBytes > this.#headMax + this.#tailMax;
  }

  add(bytes: Buffer): void {
    this.#totalBytes += bytes.length;
    const head = bytes.subarray(0, this.#headMax - this.#headBytes);
    if (head.length > 0) {
      this.#head.push(Buffer.from(head));
      this.#headBytes += head.length;
    }
    const rest = bytes.subarray(head.length);
    if (rest.length === 0) return;
    this.#tail.push(Buffer.from(rest.subarray(-this.#tailMax)));
    this.#tailBytes += this.#tail.at(-1)!.length;
    // Put together seldom: for a check that writes byte by byte.
    if (this.#tailBytes > 2 * this.#tailMax || this.#tail.length > 1024) this.#shorten();
  }

  /** As text for a terminal. Says how much was left out, and where. */
  text(): string {
    return printable(this.#text());
  }

  #text(): string {
    this.#shorten();
    const head = Buffer.concat(this.#head);
    const tail = Buffer.concat(this.#tail);
    if (!this.isCut) return Buffer.concat([head, tail]).toString('utf8');
    const left = this.#totalBytes - head.length - tail.length;
    return `${head.toString('utf8')}\n[… ${left} bytes left out …]\n${tail.toString('utf8')}`;
  }

  #shorten(): void {
    const all = Buffer.concat(this.#tail);
    const kept = this.#tailMax === 0 ? all.subarray(0, 0) : all.subarray(-this.#tailMax);
    this.#tail = [Buffer.from(kept)];
    this.#tailBytes = kept.length;
  }
}

/** Names of files on a hostile disk could steer a terminal: control characters but line ends and tabs are spelt. */
export function printable(text: string): string {
  return text
    .replaceAll('\r\n', '\n')
    .replace(/[^\P{Cc}\n\t]/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
