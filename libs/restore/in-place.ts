// A volume that goes back to a point of its own by ordinary writes, which are journaled as any others: what differs is found
// to the byte and written, and in the end the two moments are compared. A mark of what it was before undoes it.
import { MidmirrorError } from '@midmirror/basis';
import { RangeList } from './core/range-list.ts';
import type { MirrorSource } from './edges/mirror-source.ts';
import type { Target } from './edges/target.ts';
import { limits } from './limits.ts';
import type { Report } from './make-plan.ts';
import { move } from './move.ts';
import type { Moved } from './target-writes.ts';

/** How marks begin that undo a restore in place; also those of restores that were cut off. */
export const UNDO_MARK = 'before-restore-';

export function undoCommand(volume: string, mark: string): string {
  return `mim restore ${volume} --at mark:${mark} --in-place`;
}

export interface Changes {
  extents: { offset: number; length: number }[];
  /** Ask again with `after` = this; null: that was all. */
  next: number | null;
}

/** The port to a volume and its past. */
export interface InPlaceVolume {
  readonly name: string;
  /** Its live disk. */
  readonly target: Target;
  latest(): Promise<number>;
  openPoint(seq: number): Promise<MirrorSource>;
  /** To the byte: what is written again as it is would only make the journal longer. `to` null: the latest. */
  changes(from: number, to: number | null, after: number, limit: number): Promise<Changes>;
}

/** What stays of a restore that is cut off. It is there before the first byte is written. */
export interface InPlaceRecord {
  reached(doneBytes: number): Promise<void>;
  /** The volume is as of the point. */
  remove(): Promise<void>;
  close(): Promise<void>;
}

export interface InPlaceRun {
  undoMark: string;
  /** Compare the two moments in the end. */
  verify: boolean;
  report: Report;
  begin: (source: MirrorSource, ranges: RangeList) => Promise<InPlaceRecord>;
}

interface Planned {
  latest: number;
  source: MirrorSource;
  ranges: RangeList;
}

export class InPlaceRestore {
  readonly #volume: InPlaceVolume;
  readonly #seq: number;
  #planned: Planned;

  /** Reads, and writes nothing. The point is held until `close`. */
  static async prepare(volume: InPlaceVolume, seq: number): Promise<InPlaceRestore> {
    return new InPlaceRestore(volume, seq, await planOf(volume, seq));
  }

  private constructor(volume: InPlaceVolume, seq: number, planned: Planned) {
    this.#volume = volume;
    this.#seq = seq;
    this.#planned = planned;
  }

  get source(): MirrorSource {
    return this.#planned.source;
  }

  /** What differs. */
  get ranges(): RangeList {
    return this.#planned.ranges;
  }

  /** The mark stands at `seq`: what was written since the plan is in it, and goes back, too. */
  async marked(seq: number): Promise<void> {
    if (seq === this.#planned.latest) return;
    const { source } = this.#planned;
    this.#planned = await planOf(this.#volume, this.#seq);
    await source.close();
  }

  /** Rejects with MidmirrorError: the volume is between two moments then, and its record stays. */
  async run({ undoMark, verify, report, begin }: InPlaceRun): Promise<Moved> {
    const { source, ranges } = this.#planned;
    const { target } = this.#volume;
    const record = await begin(source, ranges);
    let removed = false;
    try {
      const moved = await move({
        ...{ source, target, ranges, report },
        fromBytes: 0,
        holesAreZeroes: false,
        // The appliance compares the two moments itself, in the end, all of them.
        verify: false,
        reached: (doneBytes) => record.reached(doneBytes),
      });
      await target.flush();
      if (verify) await this.#compare(undoMark);
      removed = true;
      await record.remove();
      return moved;
    } finally {
      if (!removed) await record.close();
    }
  }

  async close(): Promise<void> {
    await this.#planned.source.close();
  }

  async #compare(undoMark: string): Promise<void> {
    const { name } = this.#volume;
    const [first] = (await this.#volume.changes(this.#seq, null, 0, 1)).extents;
    if (first === undefined) return;
    throw new MidmirrorError(
      'conflict',
      `${name} differs from write ${this.#seq} at byte ${first.offset}: somebody writes to it`,
      {
        hint: `stop the guest and run this again; what it was before is mark:${undoMark}`,
        details: { offset: first.offset, limit: limits.sectorBytes },
      },
    );
  }
}

async function planOf(volume: InPlaceVolume, seq: number): Promise<Planned> {
  const latest = await volume.latest();
  const source = await volume.openPoint(seq);
  try {
    const ranges = new RangeList({
      rangesMax: limits.rangesMax,
      alignBytes: volume.target.blockBytes,
      sizeBytes: source.sizeBytes,
    });
    for (let after: number | null = 0; after !== null; ) {
      const page: Changes = await volume.changes(latest, seq, after, limits.changesPerAnswer);
      for (const { offset, length } of page.extents) ranges.add(offset, length, false);
      after = page.next;
    }
    return { latest, source, ranges };
  } catch (error) {
    await source.close();
    throw error;
  }
}
