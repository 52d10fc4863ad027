// One restore from its plan to its end: what is there already is looked at, a plan is made and told, and once it is
// agreed to it is carried out in an order that a kill at any moment leaves either the old disk, or an incomplete one
// that says so, or the new one.
import type { RangeList } from './core/range-list.ts';
import type { Progress, RecordFacts } from './core/record.ts';
import type { Digests } from './edges/compare.ts';
import type { MirrorSource } from './edges/mirror-source.ts';
import type { Target } from './edges/target.ts';
import {
  checkBase,
  type KnownBase,
  planByComparing,
  planKnown,
  planNew,
  probeRate,
  type Report,
} from './make-plan.ts';
import { move } from './move.ts';
import { ontoTarget } from './onto-target.ts';
import { openTarget } from './open-target.ts';
import type { TargetPlace } from './target-place.ts';
import type { Moved } from './target-writes.ts';

export interface RestoreWish {
  place: TargetPlace;
  /** What stands beside the target. */
  record: Progress | null;
  from: RecordFacts['source'];
  /** Null: a clone. */
  point: RecordFacts['point'];
  /** Open, with `changedSince` when there is a base. */
  source: MirrorSource;
  digests: Digests;
  base: KnownBase | null;
  /** A device or file that is larger than the disk is taken, and the rest of it left alone. */
  allowLarger: boolean;
  /** Called once the record is durable, before the first byte is written. */
  beforeFirstByte: () => Promise<void>;
  /** Nothing will be written. */
  dryRun: boolean;
  report: Report;
}

export interface Plan {
  /** `resumed`: an earlier restore of the same goes on. */
  how: 'new' | 'known' | 'compared' | 'resumed' | 'in-place';
  ranges: number;
  bytes: number;
  /** Of `bytes`, those that are read from the mirror. */
  dataBytes: number;
  /** Of `bytes`, done by the restore that goes on. */
  doneBytes: number;
  /** Read from the mirror to make the plan. */
  comparedByReadingBytes: number;
  /** Null: nothing to read. */
  bytesPerSecond: number | null;
  canFlush: boolean;
}

/** Whether an earlier restore of the same onto the same goes on, as it was agreed to then. */
export function goesOn({
  record,
  from,
  point,
  place,
}: Pick<RestoreWish, 'record' | 'from' | 'point' | 'place'>): boolean {
  if (record === null || point === null) return false;
  const { source, point: recorded, targetIdentity, undoMark, poured } = record.facts;
  // How far that one came is not known.
  if (poured !== undefined) return false;
  // A file that was taken away, or is another one now, has nothing of what the record says is done.
  const same = place.kind === 'file' ? place.identity === targetIdentity : place.kind !== 'absent';
  return same && undoMark === null && source.id === from.id && recorded?.seq === point.seq;
}

export class Restore {
  readonly #wish: RestoreWish;
  readonly #target: Target | null;
  readonly #ranges: RangeList;
  readonly #resumed: Progress | null;
  readonly #how: RecordFacts['how'];
  readonly plan: Plan;

  /** Reads, and writes nothing. Rejects with MidmirrorError. */
  static async prepare(wish: RestoreWish): Promise<Restore> {
    const { place, source, allowLarger, dryRun } = wish;
    const target = await openTarget(place, source.sizeBytes, { allowLarger, readOnly: dryRun });
    try {
      return await Restore.#planned(wish, target);
    } catch (error) {
      await target?.close();
      throw error;
    }
  }

  static async #planned(wish: RestoreWish, target: Target | null): Promise<Restore> {
    const { record, source, digests, base, report } = wish;
    const fits = record !== null && record.facts.alignBytes % (target?.blockBytes ?? 512) === 0;
    if (record !== null && fits && goesOn(wish)) {
      const { ranges, doneBytes, facts } = record;
      const plan = await planOf('resumed', ranges, source, target);
      let done = 0;
      for (const { startBytes, lengthBytes } of ranges)
        done += Math.max(0, Math.min(doneBytes - startBytes, lengthBytes));
      return new Restore(wish, target, ranges, record, facts.how, { ...plan, doneBytes: done });
    }
    if (target === null) {
      const ranges = await planNew(source, 512);
      return new Restore(wish, null, ranges, null, 'new', await planOf('new', ranges, source, null));
    }
    if (base !== null && record === null) {
      const ranges = await planKnown(source, target.blockBytes);
      await checkBase(source, target, ranges);
      return new Restore(wish, target, ranges, null, 'known', await planOf('known', ranges, source, target));
    }
    const { ranges, readBytes } = await planByComparing(source, target, digests, report);
    const plan = await planOf('compared', ranges, source, target);
    return new Restore(wish, target, ranges, null, 'compared', {
      ...plan,
      comparedByReadingBytes: readBytes,
    });
  }

  private constructor(
    wish: RestoreWish,
    target: Target | null,
    ranges: RangeList,
    resumed: Progress | null,
    how: RecordFacts['how'],
    plan: Plan,
  ) {
    this.#wish = wish;
    this.#target = target;
    this.#ranges = ranges;
    this.#resumed = resumed;
    this.#how = how;
    this.plan = plan;
  }

  /** Carries the plan out. Rejects with MidmirrorError: the target is incomplete then, and its record says so. */
  async run(verify: boolean): Promise<Moved> {
    const { place, source, report, beforeFirstByte } = this.#wish;
    const resumed = this.#resumed;
    const wish = {
      place,
      target: this.#target,
      sizeBytes: source.sizeBytes,
      begin:
        resumed === null
          ? { facts: (identity: string | null) => this.#facts(identity), ranges: this.#ranges }
          : { slotCount: resumed.slotCount },
      beforeFirstByte,
      takesPlace: false,
    };
    return await ontoTarget(wish, (target, record) =>
      move({
        source,
        target,
        ranges: this.#ranges,
        fromBytes: resumed?.doneBytes ?? 0,
        holesAreZeroes: this.#how === 'new',
        verify,
        report,
        reached: (doneBytes) => record.reached(doneBytes),
      }),
    );
  }

  async close(): Promise<void> {
    await this.#target?.close();
  }

  #facts(targetIdentity: string | null): RecordFacts {
    const { from, point, source, place } = this.#wish;
    return {
      source: from,
      point,
      sizeBytes: source.sizeBytes,
      target: place.name,
      targetIdentity,
      how: this.#how,
      alignBytes: this.#target?.blockBytes ?? 512,
      undoMark: null,
      begun: new Date().toISOString(),
    };
  }
}

async function planOf(
  how: Plan['how'],
  ranges: RangeList,
  source: MirrorSource,
  target: Target | null,
): Promise<Plan> {
  const { all, data } = ranges.bytes;
  return {
    how,
    ranges: ranges.count,
    bytes: all,
    dataBytes: data,
    doneBytes: 0,
    comparedByReadingBytes: 0,
    bytesPerSecond: await probeRate(source, ranges),
    canFlush: target?.canFlush ?? true,
  };
}
