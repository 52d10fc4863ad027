// Moves what a plan says: reads the mirror, writes the target, several pieces at a time. A window of pieces is flushed,
// read back and noted as done while the next one is moved.
import type { RangeList } from './core/range-list.ts';
import { endOf, type WindowLimits, windowsOf } from './core/windows.ts';
import type { Source } from './edges/mirror-source.ts';
import type { Target } from './edges/target.ts';
import { limits } from './limits.ts';
import type { Report } from './make-plan.ts';
import { type Moved, TargetWrites, type Window } from './target-writes.ts';

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

export async function move(options: MoveOptions): Promise<Moved> {
  return await new Mover(options).run();
}

class Mover {
  readonly #options: MoveOptions;
  readonly #buffers: Uint8Array[] = [];
  readonly #bytesTotal: number;
  #bytesDone: number;
  readonly #writes: TargetWrites;

  constructor(options: MoveOptions) {
    this.#options = options;
    this.#writes = new TargetWrites(options.target, options.verify);
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
    return this.#writes.moved;
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
    const { source, holesAreZeroes, report } = this.#options;
    const { startBytes, lengthBytes, zeroes } = window.pieces[index]!;
    const bytes = zeroes ? null : buffer.subarray(0, lengthBytes);
    if (bytes !== null) await source.read(startBytes, lengthBytes, bytes);
    await this.#writes.put(window, index, bytes, holesAreZeroes);
    this.#bytesDone += lengthBytes;
    report('moving', this.#bytesDone, this.#bytesTotal);
  }

  async #settle(window: Window): Promise<void> {
    await this.#writes.settle(window);
    await this.#options.reached(endOf(window.pieces));
  }
}

function bytesBefore(ranges: RangeList, endBytes: number): number {
  let bytes = 0;
  for (const { startBytes, lengthBytes } of ranges)
    bytes += Math.max(0, Math.min(endBytes - startBytes, lengthBytes));
  return bytes;
}
