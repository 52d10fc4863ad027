// One mirror as a check may reach it: a socket in the check's own directory behind which there is that export
// and nothing else, so that no check needs the network or comes near a live volume. Remembers what was read. Parts of
// the disk have names too, for programs that take a whole device: `mirror/<start>+<length>`.
import type { AllocationExtent, BlockDevice, ExportDirectory, WriteCommand } from '@midmirror/block-device';
import { Errno } from '@midmirror/block-device';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import {
  connectNbd,
  type NbdServer,
  type NbdTarget,
  parseNbdUri,
  type ReadPace,
  remoteExports,
  startNbdServer,
} from '@midmirror/nbd';
import { type ByteRange, ReadSet } from '../core/read-set.ts';
import { runnerLimits } from '../limits.ts';
import { NAME, socketIn } from './doorway-names.ts';
import { pacedExports } from './paced-exports.ts';
import { WrittenDisk, WrittenOver } from './written-over.ts';

export interface DoorwayOptions {
  /** Of the mirror. */
  uri: string;
  /** Where the socket is made. */
  folder: string;
  /** It may be written to: that is kept here, and gone when the doorway is closed. */
  writable: boolean;
  /** Of all doorways of the monitor together. */
  pace: ReadPace;
}

export interface Doorway {
  /** What the check is told. */
  readonly uri: string;
  /** Sorted. May name a little more than was read, never less. */
  readonly read: readonly ByteRange[];
  /** Why a read or write failed, or the connection behind it ended: no verdict stands on that. Null: none did. */
  readonly failure: string | null;
  /** Aborted once the appliance is gone: the check can be made again when it is back. */
  readonly lost: AbortSignal;
  close(): Promise<void>;
}

const PART = /^mirror\/(\d+)\+(\d+)$/;

/** Rejects with MidmirrorError, `unavailable` while the appliance is away. */
export async function openDoorway({ uri, folder, writable, pace }: DoorwayOptions): Promise<Doorway> {
  const path = socketIn(folder);
  const target = parseNbdUri(uri);
  const seen: Seen = { read: new ReadSet(runnerLimits.readRangesMax), failure: null };
  // Held to the end: the appliance keeps the point.
  const held = await connectNbd(uri);
  let over: WrittenOver | null = null;
  let server: NbdServer;
  try {
    if (writable) over = new WrittenOver(folder, runnerLimits.writtenBytesMax);
    server = await startNbdServer({ listen: { path }, directory: oneExport({ target, pace }, seen, over) });
  } catch (error) {
    await over?.close();
    await held.close();
    throw error;
  }
  return {
    uri: `nbd+unix:///${NAME}?socket=${path}`,
    get read() {
      return seen.read.ranges;
    },
    get failure() {
      return seen.failure;
    },
    lost: held.lost,
    async close() {
      await server.close(runnerLimits.doorwayCloseMsMax);
      await over?.close();
      await held.close();
    },
  };
}

interface Seen {
  readonly read: ReadSet;
  failure: string | null;
}

function oneExport(
  { target, pace }: { target: NbdTarget; pace: ReadPace },
  seen: Seen,
  over: WrittenOver | null,
): ExportDirectory {
  const remote = remoteExports({ resolve: async () => target, list: async () => [] });
  const upstream = pacedExports(remote, pace);
  return {
    list: async () => [{ name: NAME, description: 'what is to be checked' }],
    open: async (name) => {
      const part = PART.exec(name);
      if (part === null && name !== NAME && name !== '')
        throw new MidmirrorError('not-found', `there is no "${name}" here, only "${NAME}"`);
      const { contexts: _, ...opened } = await upstream.open(target.exportName).catch((error: unknown) => {
        seen.failure ??= messageOf(error);
        throw error;
      });
      const { sizeBytes } = opened.device;
      const [startBytes, lengthBytes] = part === null ? [0, sizeBytes] : [Number(part[1]), Number(part[2])];
      const whole = [startBytes, lengthBytes].every(
        (bytes) => Number.isSafeInteger(bytes) && bytes % 512 === 0,
      );
      if (!whole || lengthBytes === 0 || startBytes + lengthBytes > sizeBytes) {
        await opened.release();
        throw new MidmirrorError('bad-request', `"${name}" is not a part of a disk of ${sizeBytes} bytes`);
      }
      return {
        ...opened,
        device: new SeenDevice(over === null ? opened.device : new WrittenDisk(opened.device, over), seen, {
          ...{ writable: over !== null, startBytes, lengthBytes },
        }),
      };
    },
  };
}

class SeenDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #device: BlockDevice;
  readonly #startBytes: number;
  readonly #seen: Seen;

  constructor(
    device: BlockDevice,
    seen: Seen,
    how: { writable: boolean; startBytes: number; lengthBytes: number },
  ) {
    this.#device = device;
    this.#seen = seen;
    this.#startBytes = how.startBytes;
    this.sizeBytes = how.lengthBytes;
    this.readOnly = device.readOnly || !how.writable;
  }

  tryRead(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): boolean {
    const start = this.#startBytes + startBytes;
    if (!this.#device.tryRead(start, lengthBytes, target, targetOffset)) return false;
    this.#seen.read.add(start, lengthBytes);
    return true;
  }

  async read(
    startBytes: number,
    lengthBytes: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    const start = this.#startBytes + startBytes;
    this.#seen.read.add(start, lengthBytes);
    await this.#noting(this.#device.read(start, lengthBytes, target, targetOffset));
  }

  submit(command: WriteCommand): void {
    if (this.readOnly) return command.complete(Errno.EPERM);
    // The caller's command is its own: it may not find other numbers in it.
    this.#device.submit({
      ...command,
      startBytes: this.#startBytes + command.startBytes,
      complete: (errno) => {
        if (errno !== 0) this.#seen.failure ??= `a write failed with error ${errno}`;
        command.complete(errno);
      },
    });
  }

  kick(): void {
    this.#device.kick();
  }

  flush(): Promise<void> {
    return this.#noting(this.#device.flush());
  }

  async allocation(startBytes: number, lengthBytes: number, extentsMax: number): Promise<AllocationExtent[]> {
    const start = this.#startBytes + startBytes;
    // Where a disk is empty tells something of its bytes too.
    this.#seen.read.add(start, lengthBytes);
    return await this.#noting(this.#device.allocation(start, lengthBytes, extentsMax));
  }

  async #noting<T>(act: Promise<T>): Promise<T> {
    try {
      return await act;
    } catch (error) {
      this.#seen.failure ??= messageOf(error);
      throw error;
    }
  }
}
