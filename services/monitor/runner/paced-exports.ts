// Exports whose reads leave guests their server: a check may read a whole disk, and nobody waits for it.
import type { AllocationExtent, BlockDevice, ExportDirectory, WriteCommand } from '@midmirror/block-device';
import type { ReadPace } from '@midmirror/nbd';
import { runnerLimits } from '../limits.ts';

export function pacedExports(exports: ExportDirectory, pace: ReadPace): ExportDirectory {
  return {
    list: () => exports.list(),
    open: async (name, contexts) => {
      const opened = await exports.open(name, contexts);
      return { ...opened, device: new PacedDevice(opened.device, pace) };
    },
  };
}

class PacedDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #device: BlockDevice;
  readonly #pace: ReadPace;
  readonly #probed: Uint8Array;

  constructor(device: BlockDevice, pace: ReadPace) {
    this.#device = device;
    this.#pace = pace;
    this.sizeBytes = device.sizeBytes;
    this.readOnly = device.readOnly;
    this.#probed = new Uint8Array(Math.min(runnerLimits.paceProbeBytes, device.sizeBytes));
  }

  tryRead(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#device.tryRead(startBytes, lengthBytes, target, targetOffset);
  }

  read(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): Promise<void> {
    return this.#pace.read(
      () => this.#device.read(startBytes, lengthBytes, target, targetOffset),
      () => this.#device.read(0, this.#probed.length, this.#probed, 0),
    );
  }

  submit(command: WriteCommand): void {
    this.#device.submit(command);
  }

  kick(): void {
    this.#device.kick();
  }

  flush(): Promise<void> {
    return this.#device.flush();
  }

  allocation(startBytes: number, lengthBytes: number, extentsMax: number): Promise<AllocationExtent[]> {
    return this.#device.allocation(startBytes, lengthBytes, extentsMax);
  }
}
