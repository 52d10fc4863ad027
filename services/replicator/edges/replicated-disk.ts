// What guests see: the primary, whose writes go through the replication.
import type { AllocationExtent, BlockDevice, ExportDirectory, WriteCommand } from '@midmirror/block-device';
import { errorOf } from '@midmirror/block-device';
import { MidmirrorError } from '@midmirror/basis';
import type { Replication } from '../core/replication.ts';
import type { Primary } from './primary.ts';

export class ReplicatedDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly #primary: Primary;
  readonly #replication: Replication;

  constructor(primary: Primary, replication: Replication) {
    this.sizeBytes = primary.facts.sizeBytes;
    this.#primary = primary;
    this.#replication = replication;
  }

  tryRead(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#primary.tryRead(startBytes, lengthBytes, target, targetOffset);
  }

  read(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): Promise<void> {
    return this.#primary.read(startBytes, lengthBytes, target, targetOffset);
  }

  submit(command: WriteCommand): void {
    this.#replication.submit(command);
  }

  kick(): void {
    this.#replication.kick();
  }

  flush(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#replication.flush((errno) => {
        if (errno === 0) resolve();
        else reject(errorOf(errno, 'the primary can not be flushed'));
      });
    });
  }

  /** Nothing is known of holes of the primary. */
  async allocation(_startBytes: number, lengthBytes: number): Promise<AllocationExtent[]> {
    return [{ lengthBytes, hole: false }];
  }
}

/** One disk, by its name or by none. */
export function soleExport(name: string, device: BlockDevice, lost: AbortSignal): ExportDirectory {
  return {
    async open(asked) {
      if (asked !== name && asked !== '')
        throw new MidmirrorError('not-found', `there is no export "${asked}" here`, {
          hint: `this replicator serves "${name}"`,
        });
      return { device, description: `${name}, replicated`, multiConn: true, lost, release: () => {} };
    },
    async list() {
      return [{ name, description: `${name}, replicated` }];
    },
  };
}
