// A disk in memory that remembers each write, so that it can be shown as it was after any of them: what the appliance does,
// in a hundred lines, for tests of checks. Served by a real NBD server; a guest mounts it through FUSE and a loop device.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { AllocationExtent, BlockDevice, ExportDirectory, WriteCommand } from '@midmirror/block-device';
import { exportUri, serverUri, startNbdServer } from '@midmirror/nbd';
import { unmountFuse } from '../../../test/unmount-fuse.ts';

export interface RecordedWrite {
  startBytes: number;
  lengthBytes: number;
  /** Null: zeroes. */
  bytes: Buffer | null;
}

export class MemoryDisk implements BlockDevice {
  readonly readOnly = false;
  readonly bytes: Buffer;
  readonly #written: (write: RecordedWrite) => void;
  #queue: WriteCommand[] = [];

  constructor(bytes: Buffer, written: (write: RecordedWrite) => void = () => {}) {
    this.bytes = bytes;
    this.#written = written;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    target.set(this.bytes.subarray(start, start + length), targetOffset);
    return true;
  }

  async read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    this.tryRead(start, length, target, targetOffset);
  }

  submit(command: WriteCommand): void {
    const { kind, startBytes, lengthBytes, payload, payloadCount } = command;
    const bytes = kind === 'write' ? Buffer.concat(payload.slice(0, payloadCount)) : null;
    apply(this.bytes, { startBytes, lengthBytes, bytes });
    this.#written({ startBytes, lengthBytes, bytes });
    this.#queue.push(command);
  }

  kick(): void {
    const queue = this.#queue;
    this.#queue = [];
    for (const command of queue) command.complete(0);
  }

  async flush(): Promise<void> {}

  async allocation(_start: number, length: number): Promise<AllocationExtent[]> {
    return [{ lengthBytes: length, hole: false }];
  }
}

function apply(disk: Buffer, { startBytes, lengthBytes, bytes }: RecordedWrite): void {
  if (bytes === null) disk.fill(0, startBytes, startBytes + lengthBytes);
  else bytes.copy(disk, startBytes);
}

export class RecordedDisk {
  readonly sizeBytes: number;
  readonly writes: RecordedWrite[] = [];
  readonly #live: Buffer;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#live = Buffer.alloc(sizeBytes);
  }

  get live(): MemoryDisk {
    return new MemoryDisk(this.#live, (write) => this.writes.push(write));
  }

  /** As it was after so many writes. */
  at(seq: number): Buffer {
    const disk = Buffer.alloc(this.sizeBytes);
    for (const write of this.writes.slice(0, seq)) apply(disk, write);
    return disk;
  }
}

/** Serves it under `folder` while `act` runs; gives its URI. */
export async function serving<T>(
  folder: string,
  device: BlockDevice,
  act: (uri: string) => Promise<T>,
): Promise<T> {
  const directory: ExportDirectory = {
    list: async () => [{ name: 'db', description: '' }],
    open: async () => ({ device, description: '', multiConn: true, release: () => {} }),
  };
  const address = { path: `${folder}/served-${Math.random().toString(36).slice(2)}` };
  const server = await startNbdServer({ listen: address, directory });
  try {
    return await act(exportUri(serverUri(address), 'db'));
  } finally {
    await server.close(1000);
  }
}

/** Mounts the live disk as a guest would, after `mkfs` when it is given. */
export async function asGuest(
  folder: string,
  device: BlockDevice,
  { mkfs, options = 'rw' }: { mkfs?: readonly string[]; options?: string },
  act: (files: string) => void | Promise<void>,
): Promise<void> {
  await serving(folder, device, (uri) =>
    withFuse(folder, uri, async (file) => {
      const loop = (await runs('losetup', ['--find', '--show', file])).trim();
      try {
        if (mkfs !== undefined) await runs(mkfs[0]!, [...mkfs.slice(1), loop]);
        const files = `${folder}/guest`;
        mkdirSync(files, { recursive: true });
        await runs('mount', ['-o', options, loop, files]);
        try {
          await act(files);
        } finally {
          await runs('umount', [files]);
        }
      } finally {
        await runs('losetup', ['--detach', loop]);
      }
    }),
  );
}

async function withFuse(folder: string, uri: string, act: (file: string) => Promise<void>): Promise<void> {
  const point = `${folder}/fuse`;
  mkdirSync(point, { recursive: true });
  const child: ChildProcess = spawn('nbdfuse', [point, uri], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  try {
    while (!existsSync(`${point}/nbd`)) {
      assert.equal(child.exitCode, null, 'nbdfuse serves the disk (it needs root and /dev/fuse)');
      await pause(10);
    }
    await act(`${point}/nbd`);
  } finally {
    await unmountFuse(point).finally(() => child.kill());
    await ended;
    rmdirSync(point);
  }
}

/** Not waiting with the loop: this process serves the disk. */
export function runs(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    let complaint = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
    child.once('error', (cause) =>
      reject(new Error(`${program} is missing; npm test installs it`, { cause })),
    );
    child.once('close', (status) =>
      status === 0
        ? resolve(said)
        : reject(new Error(`${program} ${args.join(' ')}: ${status} ${complaint}`)),
    );
  });
}

/** An image of the file system, made without a mount. */
export function imageOf(path: string, sizeBytes: number, mkfs: readonly string[]): void {
  execFileSync('truncate', ['-s', String(sizeBytes), path]);
  execFileSync(mkfs[0]!, [...mkfs.slice(1), path], { stdio: ['ignore', 'ignore', 'pipe'] });
}
