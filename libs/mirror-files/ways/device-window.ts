// A range of a device as a device of its own, read-only: a partition for those who know nothing of partitions.
import { type AllocationExtent, type BlockDevice, Errno, type WriteCommand } from '@midmirror/block-device';

export class DeviceWindow implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly = true;
  readonly #device: BlockDevice;
  readonly #startBytes: number;

  constructor(device: BlockDevice, startBytes: number, sizeBytes: number) {
    this.#device = device;
    this.#startBytes = startBytes;
    this.sizeBytes = sizeBytes;
  }

  tryRead(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#device.tryRead(this.#startBytes + startBytes, lengthBytes, target, targetOffset);
  }

  read(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): Promise<void> {
    return this.#device.read(this.#startBytes + startBytes, lengthBytes, target, targetOffset);
  }

  submit(command: WriteCommand): void {
    command.complete(Errno.EPERM);
  }

  kick(): void {}

  async flush(): Promise<void> {}

  allocation(startBytes: number, lengthBytes: number, extentsMax: number): Promise<AllocationExtent[]> {
    return this.#device.allocation(this.#startBytes + startBytes, lengthBytes, extentsMax);
  }
}
