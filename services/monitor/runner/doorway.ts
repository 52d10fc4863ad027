// One mirror, or clone, as a check may reach it: a socket in the check's own directory behind which there is that export
// and nothing else, so that no check needs the network or comes near a live volume. Remembers what was read. Parts of
// the disk have names too, for programs that take a whole device: `mirror/<start>+<length>`.
import type { AllocationExtent, BlockDevice, ExportDirectory, WriteCommand } from '@midmirror/block-device';
import { Errno } from '@midmirror/block-device';
import { MidmirrorError } from '@midmirror/basis';
import { type NbdTarget, parseNbdUri, remoteExports, startNbdServer } from '@midmirror/nbd';
import { type ByteRange, ReadSet } from '../core/read-set.ts';
import { runnerLimits } from '../limits.ts';

export interface DoorwayOptions {
  /** Of the mirror or clone. */
  uri: string;
  /** Where the socket is made. */
  folder: string;
  /** True only for a clone: what is written goes to it. */
  writable: boolean;
}

export interface Doorway {
  /** What the check is told. */
  readonly uri: string;
  /** Sorted. May name a little more than was read, never less. */
  readonly read: readonly ByteRange[];
  close(): Promise<void>;
}

const NAME = 'mirror';
const PART = /^mirror\/(\d+)\+(\d+)$/;

export async function openDoorway({ uri, folder, writable }: DoorwayOptions): Promise<Doorway> {
  const path = `${folder}/nbd`;
  if (Buffer.byteLength(path) > runnerLimits.socketPathBytesMax)
    throw new MidmirrorError(
      'bad-request',
      `the socket ${path} has a path of more than ${runnerLimits.socketPathBytesMax} bytes, which no program can open`,
      { hint: 'give the monitor a state directory with a shorter path' },
    );
  const target = parseNbdUri(uri);
  const read = new ReadSet(runnerLimits.readRangesMax);
  const server = await startNbdServer({
    listen: { path },
    directory: oneExport(target, { read, writable }),
  });
  return {
    uri: `nbd+unix:///${NAME}?socket=${path}`,
    get read() {
      return read.ranges;
    },
    close: () => server.close(runnerLimits.doorwayCloseMsMax),
  };
}

/** The name of a part of the disk, as a URI of the same doorway. */
export function partUri(doorwayUri: string, startBytes: number, lengthBytes: number): string {
  return doorwayUri.replace(`/${NAME}?`, `/${NAME}/${startBytes}+${lengthBytes}?`);
}

function oneExport(target: NbdTarget, how: { read: ReadSet; writable: boolean }): ExportDirectory {
  const upstream = remoteExports({
    resolve: async () => ({ address: target.address, exportName: target.exportName }),
    list: async () => [],
  });
  return {
    list: async () => [{ name: NAME, description: 'what is to be checked' }],
    open: async (name) => {
      const part = PART.exec(name);
      if (part === null && name !== NAME && name !== '')
        throw new MidmirrorError('not-found', `there is no "${name}" here, only "${NAME}"`);
      const { contexts: _, ...opened } = await upstream.open(target.exportName);
      const { sizeBytes } = opened.device;
      const [startBytes, lengthBytes] = part === null ? [0, sizeBytes] : [Number(part[1]), Number(part[2])];
      const whole = [startBytes, lengthBytes].every(
        (bytes) => Number.isSafeInteger(bytes) && bytes % 512 === 0,
      );
      if (!whole || lengthBytes === 0 || startBytes + lengthBytes > sizeBytes) {
        await opened.release();
        throw new MidmirrorError('bad-request', `"${name}" is not a part of a disk of ${sizeBytes} bytes`);
      }
      return { ...opened, device: new SeenDevice(opened.device, { ...how, startBytes, lengthBytes }) };
    },
  };
}

class SeenDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #device: BlockDevice;
  readonly #startBytes: number;
  readonly #read: ReadSet;

  constructor(
    device: BlockDevice,
    how: { read: ReadSet; writable: boolean; startBytes: number; lengthBytes: number },
  ) {
    this.#device = device;
    this.#startBytes = how.startBytes;
    this.#read = how.read;
    this.sizeBytes = how.lengthBytes;
    this.readOnly = device.readOnly || !how.writable;
  }

  tryRead(startBytes: number, lengthBytes: number, target: Uint8Array, targetOffset: number): boolean {
    const start = this.#startBytes + startBytes;
    if (!this.#device.tryRead(start, lengthBytes, target, targetOffset)) return false;
    this.#read.add(start, lengthBytes);
    return true;
  }

  async read(
    startBytes: number,
    lengthBytes: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    const start = this.#startBytes + startBytes;
    this.#read.add(start, lengthBytes);
    await this.#device.read(start, lengthBytes, target, targetOffset);
  }

  submit(command: WriteCommand): void {
    if (this.readOnly) return command.complete(Errno.EPERM);
    if (this.#startBytes === 0) return this.#device.submit(command);
    // The caller's command is its own: it may not find other numbers in it.
    this.#device.submit({
      ...command,
      startBytes: this.#startBytes + command.startBytes,
      complete: (errno) => command.complete(errno),
    });
  }

  kick(): void {
    this.#device.kick();
  }

  flush(): Promise<void> {
    return this.#device.flush();
  }

  async allocation(startBytes: number, lengthBytes: number, extentsMax: number): Promise<AllocationExtent[]> {
    const start = this.#startBytes + startBytes;
    // Where a disk is empty tells something of its bytes too.
    this.#read.add(start, lengthBytes);
    return await this.#device.allocation(start, lengthBytes, extentsMax);
  }
}
