// How far the MIM may have come, for those who read it and may not hear of a sync: mim.state says so before the MIM
// changes. A reader goes by its last look for a while only, and a sync that nobody has answered waits longer than that
// between telling and writing. So whether a process slept, or lost the bus, makes no difference.
//
//   sync     mim.state: sync under way ──── readerSettleMs ────► first byte
//   reader             look ── at most readerValidMs ──► bytes read, and counted
//
// The look begins before the bytes are counted by at most readerValidMs, and so after mim.state was written if any of
// them is of that sync.
import { assert, MidmirrorError } from '@midmirror/basis';
import { decodeMimState, Format, type MimState } from '@midmirror/journal';
import type { PoolFile, PoolFiles } from './files.ts';
import type { VolumePaths } from './layout.ts';
import { limits } from './limits.ts';

assert(limits.readerSettleMs > limits.readerValidMs, 'a sync waits longer than readers go by a look');

/** The newest write that may be on the MIM by now. It never goes back. */
function mimReach({ mimSeq, syncId, targetSeq }: MimState): number {
  return syncId === 0 ? mimSeq : Math.max(mimSeq, targetSeq);
}

export class MimWatch {
  readonly #look: () => MimState | null;
  readonly #monotonicMs: () => number;
  readonly #validMs: number;
  #reach = 0;
  #lookedMs = Number.NEGATIVE_INFINITY;

  /**
   * `look` reads mim.state at once. `monotonicMs` goes on while the process is stopped. For tests: `validMs`, how long
   * it goes by a look.
   */
  constructor(
    look: () => MimState | null,
    monotonicMs: () => number,
    validMs: number = limits.readerValidMs,
  ) {
    this.#look = look;
    this.#monotonicMs = monotonicMs;
    this.#validMs = validMs;
  }

  /**
   * Call after bytes, or marks of holes, were taken from the MIM: true, and none of them is newer than write `seq`.
   * Throws `corrupt` when both slots of mim.state are damaged: nobody knows then.
   */
  holdsTo(seq: number): boolean {
    if (this.#reach > seq) return false;
    const nowMs = this.#monotonicMs();
    if (nowMs - this.#lookedMs < this.#validMs) return true;
    // Once more: a slot that is being written looks damaged for a moment.
    const state = this.#look() ?? this.#look();
    if (state === null)
      throw new MidmirrorError(
        'corrupt',
        'both slots of mim.state are damaged: how far the MIM is, is not known',
        {
          hint: 'run `mim verify` on the volume',
        },
      );
    this.#reach = Math.max(this.#reach, mimReach(state));
    this.#lookedMs = nowMs;
    return this.#reach <= seq;
  }
}

/** mim.state kept open for looks at it. */
export class MimStateFile {
  readonly #file: PoolFile;
  readonly #bytes = new Uint8Array(2 * Format.mimStateSlotBytes);

  private constructor(file: PoolFile) {
    this.#file = file;
  }

  static async open(files: PoolFiles, paths: VolumePaths): Promise<MimStateFile> {
    return new MimStateFile(await files.open(paths.mimState, 'read'));
  }

  /** Null: neither slot is whole. */
  readNow(): MimState | null {
    const count = this.#file.readSync(this.#bytes, 0, this.#bytes.length, 0);
    return decodeMimState(this.#bytes.subarray(0, count));
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
