// The writes on their way to the appliance, in the order in which the primary has completed them. Entries have
// places 1, 2, 3, …, never used again; their data lies in one ring of bytes. Bounded: what has no room is not taken.
import { assert } from '@midmirror/basis';
import type { WriteCommand } from '@midmirror/block-device';

/** A copy is a write too, one that no guest has made. */
export const EntryKind = { write: 0, zeroes: 1, nothing: 2, copy: 3 } as const;
export type EntryKind = (typeof EntryKind)[keyof typeof EntryKind];

/** Whoever waits for the answer to an entry. */
export interface EntryOwner {
  entryDone(): void;
}

export class SendQueue {
  readonly bytesMax: number;
  readonly entriesMax: number;
  readonly #data: Uint8Array;
  readonly #kinds: Uint8Array;
  readonly #fua: Uint8Array;
  readonly #done: Uint8Array;
  readonly #starts: Float64Array;
  readonly #lengths: Float64Array;
  readonly #dataAt: Float64Array;
  readonly #atMs: Float64Array;
  readonly #owners: (EntryOwner | null)[];
  /** Bytes ever put in and ever let go of. */
  #head = 0;
  #tail = 0;
  #copiedBytes = 0;
  #lastPos = 0;
  #sentPos = 0;
  #ackedPos = 0;
  /** Room that writes under way on the primary will take. */
  reservedBytes = 0;
  reservedEntries = 0;
  /** Nothing behind it is sent. */
  gatePos = Number.POSITIVE_INFINITY;

  constructor(bytesMax: number, entriesMax: number) {
    this.bytesMax = bytesMax;
    this.entriesMax = entriesMax;
    this.#data = new Uint8Array(bytesMax);
    this.#kinds = new Uint8Array(entriesMax);
    this.#fua = new Uint8Array(entriesMax);
    this.#done = new Uint8Array(entriesMax);
    this.#starts = new Float64Array(entriesMax);
    this.#lengths = new Float64Array(entriesMax);
    this.#dataAt = new Float64Array(entriesMax);
    this.#atMs = new Float64Array(entriesMax);
    this.#owners = new Array<EntryOwner | null>(entriesMax).fill(null);
  }

  /** Of the newest entry; 0: there has been none. */
  get lastPos(): number {
    return this.#lastPos;
  }
  /** All up to it have been answered. */
  get ackedPos(): number {
    return this.#ackedPos;
  }
  get empty(): boolean {
    return this.#ackedPos === this.#lastPos;
  }
  get usedBytes(): number {
    return this.#head - this.#tail;
  }
  /** Of that, what copies take. */
  get copiedBytes(): number {
    return this.#copiedBytes;
  }
  get entries(): number {
    return this.#lastPos - this.#ackedPos;
  }

  /** When the oldest entry that is not answered was put in; null: there is none. */
  get oldestMs(): number | null {
    return this.empty ? null : this.#atMs[(this.#ackedPos + 1) % this.entriesMax]!;
  }

  hasRoom(dataBytes: number, entries: number): boolean {
    return (
      this.usedBytes + this.reservedBytes + dataBytes <= this.bytesMax &&
      this.entries + this.reservedEntries + entries <= this.entriesMax
    );
  }

  /** `[offset, offset + length)` of a guest's write, which there is room for. */
  addOf(
    command: WriteCommand,
    offset: number,
    length: number,
    owner: EntryOwner | null,
    nowMs: number,
  ): number {
    const kind = command.kind === 'write' ? EntryKind.write : EntryKind.zeroes;
    const pos = this.#add(kind, command.startBytes + offset, length, command.fua, owner, nowMs);
    if (kind !== EntryKind.write) return pos;
    let skip = offset;
    let left = length;
    for (let i = 0; left > 0; i += 1) {
      const piece = command.payload[i]!;
      if (skip >= piece.length) {
        skip -= piece.length;
        continue;
      }
      const count = Math.min(left, piece.length - skip);
      this.#put(skip === 0 && count === piece.length ? piece : piece.subarray(skip, skip + count));
      left -= count;
      skip = 0;
    }
    return pos;
  }

  addCopy(start: number, data: Uint8Array, nowMs: number): number {
    const pos = this.#add(EntryKind.copy, start, data.length, false, null, nowMs);
    this.#copiedBytes += data.length;
    this.#put(data);
    return pos;
  }

  addZeroes(start: number, length: number, nowMs: number): number {
    return this.#add(EntryKind.zeroes, start, length, false, null, nowMs);
  }

  /** A place without a write: what it stands for is done once the ones before it are. */
  addNothing(nowMs: number): number {
    return this.#add(EntryKind.nothing, 0, 0, false, null, nowMs);
  }

  /** The next place to send; 0: there is none, or it stands behind the gate. */
  get nextPos(): number {
    const pos = this.#sentPos + 1;
    return pos <= this.#lastPos && pos <= this.gatePos ? pos : 0;
  }

  sent(pos: number): void {
    assert(pos === this.#sentPos + 1, 'entries are sent in order');
    this.#sentPos = pos;
  }

  kindAt(pos: number): EntryKind {
    return this.#kinds[pos % this.entriesMax] as EntryKind;
  }
  startAt(pos: number): number {
    return this.#starts[pos % this.entriesMax]!;
  }
  lengthAt(pos: number): number {
    return this.#lengths[pos % this.entriesMax]!;
  }
  fuaAt(pos: number): boolean {
    return this.#fua[pos % this.entriesMax] === 1;
  }

  /** The data of an entry: one piece, or two where the ring begins anew. How many. */
  payloadAt(pos: number, pieces: Uint8Array[]): number {
    const length = this.lengthAt(pos);
    const from = this.#dataAt[pos % this.entriesMax]! % this.bytesMax;
    const first = Math.min(length, this.bytesMax - from);
    pieces[0] = this.#data.subarray(from, from + first);
    if (first === length) return 1;
    pieces[1] = this.#data.subarray(0, length - first);
    return 2;
  }

  /** The appliance has it. Answers may come in any order. */
  acked(pos: number): void {
    assert(pos > this.#ackedPos && pos <= this.#sentPos, `entry ${pos} was sent and not answered`);
    const at = pos % this.entriesMax;
    this.#done[at] = 1;
    const owner = this.#owners[at] ?? null;
    this.#owners[at] = null;
    while (this.#ackedPos < this.#sentPos && this.#done[(this.#ackedPos + 1) % this.entriesMax] === 1) {
      this.#ackedPos += 1;
      const slot = this.#ackedPos % this.entriesMax;
      this.#done[slot] = 0;
      if (this.#kinds[slot] === EntryKind.copy) this.#copiedBytes -= this.#lengths[slot]!;
      if (hasData(this.#kinds[slot]!)) this.#tail = this.#dataAt[slot]! + this.#lengths[slot]!;
    }
    owner?.entryDone();
  }

  /** Lets go of everything that is not answered; who waited for it. */
  discard(): EntryOwner[] {
    const owners: EntryOwner[] = [];
    for (let pos = this.#ackedPos + 1; pos <= this.#lastPos; pos += 1) {
      const at = pos % this.entriesMax;
      const owner = this.#owners[at];
      if (owner != null) owners.push(owner);
      this.#owners[at] = null;
      this.#done[at] = 0;
    }
    this.#tail = this.#head;
    this.#copiedBytes = 0;
    this.#sentPos = this.#ackedPos = this.#lastPos;
    this.gatePos = Number.POSITIVE_INFINITY;
    return owners;
  }

  #add(
    kind: EntryKind,
    start: number,
    length: number,
    fua: boolean,
    owner: EntryOwner | null,
    nowMs: number,
  ): number {
    const pos = this.#lastPos + 1;
    assert(this.entries < this.entriesMax, 'the queue has room for an entry');
    this.#lastPos = pos;
    const at = pos % this.entriesMax;
    this.#kinds[at] = kind;
    this.#starts[at] = start;
    this.#lengths[at] = length;
    this.#fua[at] = fua ? 1 : 0;
    this.#done[at] = 0;
    this.#dataAt[at] = this.#head;
    this.#atMs[at] = nowMs;
    this.#owners[at] = owner;
    return pos;
  }

  #put(bytes: Uint8Array): void {
    assert(this.usedBytes + bytes.length <= this.bytesMax, 'the queue has room for the data');
    const at = this.#head % this.bytesMax;
    const first = Math.min(bytes.length, this.bytesMax - at);
    if (first === bytes.length) this.#data.set(bytes, at);
    else {
      this.#data.set(bytes.subarray(0, first), at);
      this.#data.set(bytes.subarray(first), 0);
    }
    this.#head += bytes.length;
  }
}

export function hasData(kind: number): boolean {
  return kind === EntryKind.write || kind === EntryKind.copy;
}
