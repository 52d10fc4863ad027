// Writing a target in windows of pieces: data and zeroes by their cheapest way, then a flush, and what was written read
// back. Shared by what moves a plan and what pours a stream.
import { crc32 } from 'node:zlib';
import { isZero, MidmirrorError } from '@midmirror/basis';
import { runsOf } from './core/differing.ts';
import type { PlannedRange } from './core/range-list.ts';
import type { Target } from './edges/target.ts';
import { limits } from './limits.ts';

export interface Moved {
  bytesRead: number;
  bytesWritten: number;
  bytesZeroed: number;
  /** Bytes that were read back and are as they should be. */
  bytesVerified: number;
  /** They came from storage; false: perhaps from somebody's memory. */
  fromStorage: boolean;
}

export interface Window {
  pieces: PlannedRange[];
  /** Of each piece that has bytes. */
  sums: Uint32Array;
}

export class TargetWrites {
  readonly #target: Target;
  readonly #verify: boolean;
  readonly moved: Moved = {
    bytesRead: 0,
    bytesWritten: 0,
    bytesZeroed: 0,
    bytesVerified: 0,
    fromStorage: true,
  };

  constructor(target: Target, verify: boolean) {
    this.#target = target;
    this.#verify = verify;
  }

  /**
   * One piece of a window; `bytes` null: zeroes. `holesAreZeroes`: the target reads as zeroes wherever nothing has been
   * written, so zeroes need not be.
   */
  async put(window: Window, index: number, bytes: Uint8Array | null, holesAreZeroes: boolean): Promise<void> {
    const { startBytes, lengthBytes } = window.pieces[index]!;
    if (bytes === null) return holesAreZeroes ? undefined : await this.#zeroes(startBytes, lengthBytes);
    if (this.#verify) window.sums[index] = crc32(bytes);
    this.moved.bytesRead += lengthBytes;
    // A server that takes zeroes as such need not be sent them.
    if (!holesAreZeroes && isZero(bytes)) return await this.#zeroes(startBytes, lengthBytes);
    await this.#write(startBytes, bytes, holesAreZeroes);
  }

  /** When it resolves the window is on stable storage and, where that is asked for, has been read back. */
  async settle(window: Window): Promise<void> {
    await this.#target.flush();
    // Also when nothing is read back: a restore should not push everything else out of memory.
    this.moved.fromStorage = (await this.#target.dropCaches()) && this.moved.fromStorage;
    if (this.#verify) await this.#readBack(window);
  }

  async #zeroes(startBytes: number, lengthBytes: number): Promise<void> {
    await this.#target.zeroes(startBytes, lengthBytes);
    this.moved.bytesZeroed += lengthBytes;
  }

  async #write(startBytes: number, bytes: Uint8Array, holesAreZeroes: boolean): Promise<void> {
    const block = limits.holeBytes;
    const holds = (i: number): boolean =>
      !holesAreZeroes || !isZero(bytes.subarray(i * block, Math.min((i + 1) * block, bytes.length)));
    for (const run of runsOf(bytes.length, block, holds)) {
      const end = run.startBytes + run.lengthBytes;
      await this.#target.write(startBytes + run.startBytes, bytes.subarray(run.startBytes, end));
      this.moved.bytesWritten += run.lengthBytes;
    }
  }

  async #readBack({ pieces, sums }: Window): Promise<void> {
    const target = this.#target;
    const bytesMax = Math.max(...pieces.map(({ lengthBytes }) => lengthBytes));
    let next = 0;
    const worker = async (): Promise<void> => {
      const buffer = new Uint8Array(bytesMax);
      while (next < pieces.length) {
        const index = next;
        next += 1;
        const { startBytes, lengthBytes, zeroes } = pieces[index]!;
        const bytes = buffer.subarray(0, lengthBytes);
        await target.read(startBytes, lengthBytes, bytes);
        if (zeroes ? isZero(bytes) : crc32(bytes) === sums[index]) {
          this.moved.bytesVerified += lengthBytes;
          continue;
        }
        next = pieces.length;
        throw new MidmirrorError(
          'io',
          `${target.name} gives back other bytes than were written to it, in ${lengthBytes} at ${startBytes}`,
          { hint: 'something else writes to it, or its storage is faulty; the target is incomplete' },
        );
      }
    };
    const ended = await Promise.allSettled(Array.from({ length: limits.readsBackMax }, worker));
    const broken = ended.find((each) => each.status === 'rejected');
    if (broken !== undefined) throw broken.reason;
  }
}
