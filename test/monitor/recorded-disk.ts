// The writes of a real file system in use, recorded at its disk, so that a history can be played to a volume write by write
// with another one put in anywhere.
import { closeSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { type BlockDevice, type AllocationExtent, Errno, type WriteCommand } from '@midmirror/block-device';
import { connectNbd, startNbdServer } from '@midmirror/nbd';
import { MountedDisk } from '../replicator/mounted-disk.ts';

export interface RecordedWrite {
  kind: 'write' | 'zeroes' | 'trim';
  start: number;
  length: number;
  data: Buffer | null;
}

const IMAGE_PIECE = 1 << 20;
const PLAYED_AT_ONCE = 64;

/** What is written to the mounted image by `act`, a path's work in other processes: this one serves the disk. */
export async function record(
  folder: string,
  image: string,
  act: (path: string) => Promise<void>,
): Promise<RecordedWrite[]> {
  const device = new RecordingDevice(image);
  const socket = `${folder}/recorded.sock`;
  const server = await startNbdServer({
    listen: { path: socket },
    directory: {
      list: async () => [],
      open: async () => ({ device, description: '', multiConn: true, release: () => {} }),
    },
  });
  try {
    const uri = `nbd+unix:///?socket=${socket}`;
    const disk = await MountedDisk.mount(folder, 'recorded', uri, { retrying: false, format: false });
    try {
      await act(disk.path);
    } finally {
      await disk.unmount();
    }
  } finally {
    await server.close(5000);
    device.close();
  }
  return device.writes;
}

/** The image as writes, without what is zero. */
export function imageWrites(image: string): RecordedWrite[] {
  const file = openSync(image, 'r');
  try {
    const writes: RecordedWrite[] = [];
    const { size } = statSync(image);
    for (let start = 0; start < size; start += IMAGE_PIECE) {
      const data = Buffer.alloc(Math.min(IMAGE_PIECE, size - start));
      readSync(file, data, 0, data.length, start);
      if (data.some((byte) => byte !== 0)) writes.push({ kind: 'write', start, length: data.length, data });
    }
    return writes;
  } finally {
    closeSync(file);
  }
}

/** Each is one write of the volume, in this order. */
export async function play(uri: string, writes: readonly RecordedWrite[]): Promise<void> {
  const client = await connectNbd(uri);
  for (let at = 0; at < writes.length; at += PLAYED_AT_ONCE)
    await Promise.all(
      writes.slice(at, at + PLAYED_AT_ONCE).map(async ({ kind, start, length, data }) => {
        if (data !== null) await client.write(start, data);
        else if (kind === 'trim') await client.trim(start, length);
        else await client.zeroes(start, length);
      }),
    );
  await client.flush();
  await client.close();
}

class RecordingDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly writes: RecordedWrite[] = [];
  readonly #file: number;
  #done: WriteCommand[] = [];

  constructor(image: string) {
    this.#file = openSync(image, 'r+');
    this.sizeBytes = statSync(image).size;
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    readSync(this.#file, target, targetOffset, length, start);
    return true;
  }

  async read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    this.tryRead(start, length, target, targetOffset);
  }

  submit(command: WriteCommand): void {
    const { kind, startBytes: start, lengthBytes: length, payload, payloadCount } = command;
    const data = kind === 'write' ? Buffer.concat(payload.slice(0, payloadCount)) : null;
    writeSync(this.#file, data ?? Buffer.alloc(length), 0, length, start);
    this.writes.push({ kind, start, length, data });
    this.#done.push(command);
  }

  kick(): void {
    for (const command of this.#done.splice(0)) command.complete(Errno.ok);
  }

  async flush(): Promise<void> {}

  async allocation(_start: number, length: number): Promise<AllocationExtent[]> {
    return [{ lengthBytes: length, hole: false }];
  }

  close(): void {
    closeSync(this.#file);
  }
}
