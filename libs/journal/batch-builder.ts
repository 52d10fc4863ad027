// Builds header and descriptors of one batch in one reused buffer. On the hot path: no object per write.
import { assert } from '@midmirror/basis';
import type { BatchHeader } from './batch.ts';
import { checksumOf } from './checksum.ts';
import { Format } from './format.ts';
import { setNs, setU64 } from './words.ts';

export class BatchBuilder {
  readonly capacity: number;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  #count = 0;

  /** `capacity` in descriptors. */
  constructor(capacity: number) {
    this.capacity = capacity;
    this.#bytes = new Uint8Array(Format.batchHeaderBytes + capacity * Format.descriptorBytes);
    this.#words = new Uint32Array(this.#bytes.buffer);
  }

  get count(): number {
    return this.#count;
  }

  /** The descriptors as words, six each, from word 20 on. */
  get words(): Uint32Array {
    return this.#words;
  }

  reset(): void {
    this.#count = 0;
  }

  add(kind: number, flags: number, crc: number, start: number, length: number, dataOffset: number): void {
    assert(this.#count < this.capacity, 'a batch has room for its descriptors');
    const base = 20 + this.#count * 6;
    const words = this.#words;
    words[base] = kind | (flags << 8);
    words[base + 1] = crc;
    setU64(words, base + 2, start);
    words[base + 4] = length;
    words[base + 5] = dataOffset;
    this.#count += 1;
  }

  /** Completes the header and returns header and descriptors; valid until the next `reset`. */
  finish(header: BatchHeader): Uint8Array {
    const words = this.#words;
    words.fill(0, 0, 20);
    words[0] = Format.batchMagic;
    words[1] = Format.version;
    setU64(words, 2, header.epoch);
    words[4] = header.segment;
    words[5] = header.offset;
    setU64(words, 6, header.firstSeq);
    setNs(words, 8, header.timeNs);
    setU64(words, 10, header.durableSeq);
    words[12] = this.#count;
    words[13] = header.writeCount;
    words[14] = header.dataBytes;
    words[15] = checksumOf(this.#bytes, Format.batchHeaderBytes, this.#count * Format.descriptorBytes);
    words[16] = header.previousCrc;
    words[19] = checksumOf(this.#bytes, 0, Format.batchHeaderBytes - 4);
    return this.#bytes.subarray(0, Format.batchHeaderBytes + this.#count * Format.descriptorBytes);
  }

  /** Checksum of the header last finished: the next batch carries it. */
  get headerCrc(): number {
    return this.#words[19]!;
  }
}
