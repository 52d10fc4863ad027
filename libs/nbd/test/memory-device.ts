// A disk in memory, as an NBD server sees one: writes complete at the kick, reads at once or later.
import { type AllocationExtent, type BlockDevice, Errno, type WriteCommand } from '@midmirror/block-device';

export class MemoryDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly bytes: Uint8Array;
  /** Completes writes in a later turn, and reads too. */
  late = false;
  #queue: WriteCommand[] = [];

  constructor(sizeBytes: number, readOnly = false) {
    this.sizeBytes = sizeBytes;
    this.readOnly = readOnly;
    this.bytes = new Uint8Array(sizeBytes);
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    if (this.late) return false;
    target.set(this.bytes.subarray(start, start + length), targetOffset);
    return true;
  }

  async read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    target.set(this.bytes.subarray(start, start + length), targetOffset);
  }

  submit(command: WriteCommand): void {
    let at = command.startBytes;
    if (command.kind !== 'write') this.bytes.fill(0, at, at + command.lengthBytes);
    for (let i = 0; i < command.payloadCount; i += 1) {
      this.bytes.set(command.payload[i]!, at);
      at += command.payload[i]!.length;
    }
    this.#queue.push(command);
  }

  kick(): void {
    const queue = this.#queue;
    this.#queue = [];
    const complete = (): void => {
      for (const command of queue) command.complete(Errno.ok);
    };
    if (this.late) setImmediate(complete);
    else complete();
  }

  async flush(): Promise<void> {}

  async allocation(_start: number, length: number): Promise<AllocationExtent[]> {
    return [{ lengthBytes: length, hole: false }];
  }
}
