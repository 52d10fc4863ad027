// Moves what a plan says: reads the mirror, writes the target, several pieces at a time. A window of pieces is flushed,
// read back and noted as done while the next one is moved.
import { crc32 } from 'node:zlib';
import { isZero, MidmirrorError } from '@midmirror/basis';
import { runsOf } from './core/differing.ts';
import type { PlannedRange, RangeList } from './core/range-list.ts';
import { endOf, type WindowLimits, windowsOf } from './core/windows.ts';
import type { Source } from './edges/mirror-source.ts';
import type { Target } from './edges/target.ts';
import { limits } from './limits.ts';
import type { Report } from './make-plan.ts';

export interface MoveOptions {
  source: Pick<Source, 'read'>;
  target: Target;
  ranges: RangeList;
  /** What lies before it is done already. */
  fromBytes: number;
  /** The target reads as zeroes wherever nothing has been written: zeroes need not be. */
  holesAreZeroes: boolean;
  verify: boolean;
  report: Report;
  /** What lies before it is flushed and read back. */
  reached: (doneBytes: number) => Promise<void>;
  windows?: WindowLimits;
}

export interface Moved {
  bytesRead: number;
  bytesWritten: number;
  bytesZeroed: number;
  /** Bytes that were read back and are as they should be. */
  bytesVerified: number;
  /** They came from storage; false: perhaps from somebody's memory. */
  fromStorage: boolean;
}

interface Window {
  pieces: PlannedRange[];
  /** Of each piece that was read from the mirror. */
  sums: Uint32Array;
}

export async function move(options: MoveOptions): Promise<Moved> {
  return await new Mover(options).run();
}

class Mover {
  readonly #options: MoveOptions;
  readonly #buffers: Uint8Array[] = [];
  readonly #bytesTotal: number;
  #bytesDone: number;
  readonly #moved: Moved = {
    bytesRead: 0,
    bytesWritten: 0,
    bytesZeroed: 0,
    bytesVerified: 0,
    fromStorage: true,
  };

  constructor(options: MoveOptions) {
    this.#options = options;
    this.#bytesTotal = options.ranges.bytes.all;
    this.#bytesDone = bytesBefore(options.ranges, options.fromBytes);
  }

  async run(): Promise<Moved> {
    const { ranges, fromBytes, windows = limits } = this.#options;
    let settled: Promise<void> = Promise.resolve();
    for (const pieces of windowsOf(ranges, fromBytes, windows)) {
      const window: Window = { pieces, sums: new Uint32Array(pieces.length) };
      const moving = this.#moveWindow(window);
      // Whichever fails first ends it; what the other does meanwhile is awaited and does no harm.
      await Promise.all([moving, settled]).catch(async (error: unknown) => {
        await Promise.allSettled([moving, settled]);
        throw error;
      });
      settled = this.#settle(window);
      settled.catch(() => {});
    }
    await settled;
    return this.#moved;
  }

  async #moveWindow(window: Window): Promise<void> {
    let next = 0;
    let failed = false;
    const worker = async (): Promise<void> => {
      const buffer = this.#buffers.pop() ?? new Uint8Array(limits.pieceBytesMax);
      try {
        while (next < window.pieces.length && !failed) {
          const piece = next;
          next += 1;
          await this.#movePiece(window, piece, buffer);
        }
      } catch (error) {
        failed = true;
        throw error;
      } finally {
        this.#buffers.push(buffer);
      }
    };
    const count = Math.min(limits.piecesInFlightMax, window.pieces.length);
    const ended = await Promise.allSettled(Array.from({ length: count }, worker));
    const broken = ended.find((each) => each.status === 'rejected');
    if (broken !== undefined) throw broken.reason;
  }

  async #movePiece(window: Window, index: number, buffer: Uint8Array): Promise<void> {
    const { source, target, holesAreZeroes, verify, report } = this.#options;
    const { startBytes, lengthBytes, zeroes } = window.pieces[index]!;
    if (zeroes) {
      if (!holesAreZeroes) {
        await target.zeroes(startBytes, lengthBytes);
        this.#moved.bytesZeroed += lengthBytes;
      }
    } else {
      const bytes = buffer.subarray(0, lengthBytes);
      await source.read(startBytes, lengthBytes, bytes);
      if (verify) window.sums[index] = crc32(bytes);
      this.#moved.bytesRead += lengthBytes;
      // A server that takes zeroes as such need not be sent them.
      if (!holesAreZeroes && isZero(bytes)) {
        await target.zeroes(startBytes, lengthBytes);
        this.#moved.bytesZeroed += lengthBytes;
      } else await this.#write(startBytes, bytes);
    }
    this.#bytesDone += lengthBytes;
    report('moving', this.#bytesDone, this.#bytesTotal);
  }

  async #write(startBytes: number, bytes: Uint8Array): Promise<void> {
    const { target, holesAreZeroes } = this.#options;
    const block = limits.holeBytes;
    const holds = (i: number): boolean =>
      !holesAreZeroes || !isZero(bytes.subarray(i * block, Math.min((i + 1) * block, bytes.length)));
    for (const run of runsOf(bytes.length, block, holds)) {
      const end = run.startBytes + run.lengthBytes;
      await target.write(startBytes + run.startBytes, bytes.subarray(run.startBytes, end));
      this.#moved.bytesWritten += run.lengthBytes;
    }
  }

  async #settle(window: Window): Promise<void> {
    const { target, verify, reached } = this.#options;
    await target.flush();
    // Also when nothing is read back: a restore should not push everything else out of memory.
    this.#moved.fromStorage = (await target.dropCaches()) && this.#moved.fromStorage;
    if (verify) await this.#readBack(window);
    await reached(endOf(window.pieces));
  }

  async #readBack({ pieces, sums }: Window): Promise<void> {
    const { target } = this.#options;
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
          this.#moved.bytesVerified += lengthBytes;
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
    await Promise.all(Array.from({ length: limits.readsBackMax }, worker));
  }
}

function bytesBefore(ranges: RangeList, endBytes: number): number {
  let bytes = 0;
  for (const { startBytes, lengthBytes } of ranges)
    bytes += Math.max(0, Math.min(endBytes - startBytes, lengthBytes));
  return bytes;
}
