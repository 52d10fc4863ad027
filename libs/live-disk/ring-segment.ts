// One segment of the ring while the live disk has it open.
import { type PoolFile, segmentName } from '@midmirror/pool';

/** Headers and descriptors of a segment's batches, back to back, as they stand in the file. */
class DescriptorLog {
  #bytes = new Uint8Array(64 << 10);
  length = 0;

  append(bytes: Uint8Array): void {
    if (this.length + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.length + bytes.length));
      grown.set(this.#bytes.subarray(0, this.length));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  bytes(from: number, to: number): Uint8Array {
    return this.#bytes.subarray(from, to);
  }
}

export class RingSegment {
  readonly number: number;
  readonly epoch: number;
  readonly file: PoolFile;
  /** `firstSeq - 1` while it holds no write. */
  lastSeq = 0;
  firstSeq = 0;
  firstNs = 0n;
  lastNs = 0n;
  writeOffset: number;
  descriptorCount = 0;
  batchCount = 0;
  /** Null once published and sealed; then it can be read back from the file. */
  log: DescriptorLog | null = new DescriptorLog();
  sealed = false;
  /** Net extents, once sealed. */
  extentCount = 0;
  lastHeaderCrc = 0;
  /** Asynchronous reads that use the file now; it is not recycled before they end. */
  readers = 0;
  whenUnused: (() => void) | null = null;

  constructor(number: number, epoch: number, file: PoolFile, writeOffset: number) {
    this.number = number;
    this.epoch = epoch;
    this.file = file;
    this.writeOffset = writeOffset;
  }

  get name(): string {
    return segmentName(this.epoch, this.number);
  }

  /** Waits for the disk; true: it is done. */
  syncNow(): boolean {
    this.file.datasyncSync();
    return true;
  }

  release(): void {
    this.readers -= 1;
    if (this.readers === 0) this.whenUnused?.();
  }
}
