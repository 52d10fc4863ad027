// A guest's write on its way through the core: a range of one value, whose bytes are the guest's again once it is answered.
import type { WriteCommand, WriteKind } from '@midmirror/block-device';

export interface Content {
  start: number;
  length: number;
  /** 0: zeroes. */
  fill: number;
}

/** A write on its way through the core. */
export class GuestWrite implements WriteCommand {
  kind: WriteKind;
  startBytes: number;
  lengthBytes: number;
  fua: boolean;
  payload: Uint8Array[];
  payloadCount: number;
  readonly content: Content;
  /** In the primary's history, once it is there. */
  place = 0;
  readonly #answered: (errno: number, write: GuestWrite) => void;

  constructor(
    kind: WriteKind,
    content: Content,
    fua: boolean,
    cut: number,
    answered: (errno: number, write: GuestWrite) => void,
  ) {
    this.kind = kind;
    this.startBytes = content.start;
    this.lengthBytes = content.length;
    this.fua = fua;
    this.content = kind === 'write' ? content : { ...content, fill: 0 };
    const data = new Uint8Array(content.length).fill(content.fill);
    const pieces = cut > 0 && cut < data.length ? [data.subarray(0, cut), data.subarray(cut)] : [data];
    this.payload = kind === 'write' ? pieces : [];
    this.payloadCount = this.payload.length;
    this.#answered = answered;
  }

  complete(errno: number): void {
    for (const piece of this.payload) piece.fill(255); // it is the guest's again
    this.#answered(errno, this);
  }
}

export function apply(bytes: Uint8Array, { start, length, fill }: Content): void {
  bytes.fill(fill, start, start + length);
}

export function concat(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
