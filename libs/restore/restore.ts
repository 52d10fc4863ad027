// One restore from its plan to its end: what is there already is looked at, a plan is made and told, and once it is
// agreed to it is carried out in an order that a kill at any moment leaves either the old disk, or an incomplete one
// that says so, or the new one.
import { printBytes, MidmirrorError } from '@midmirror/basis';
import type { RangeList } from './core/range-list.ts';
import type { Progress, RecordFacts } from './core/record.ts';
import type { Digests } from './edges/compare.ts';
import { makeFile, type NewFile, openFile, syncFolderOf } from './edges/file-target.ts';
import type { MirrorSource } from './edges/mirror-source.ts';
import { openNbd } from './edges/nbd-target.ts';
import { RecordFile } from './edges/record-file.ts';
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
import { type Moved, move } from './move.ts';
import type { TargetPlace } from './target-place.ts';

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
  const { source, point: recorded, targetIdentity, undoMark } = record.facts;
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
    const target = await openTarget(wish);
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
    const { place, source } = this.#wish;
    const made = this.#target === null ? await makeFile(place.name, source.sizeBytes) : null;
    const target = this.#target ?? made!.target;
    try {
      const identity = place.kind === 'file' ? place.identity : ((await made?.target.identity()) ?? null);
      const record =
        this.#resumed === null
          ? await RecordFile.create(place.recordPath, this.#facts(identity), this.#ranges)
          : await RecordFile.open(place.recordPath, this.#resumed.slotCount);
      return await this.#runWith(record, target, made, verify);
    } finally {
      await made?.target.close();
    }
  }

  async #runWith(record: RecordFile, target: Target, made: NewFile | null, verify: boolean): Promise<Moved> {
    const { place, source, report } = this.#wish;
    let removed = false;
    try {
      await this.#wish.beforeFirstByte();
      await made?.place();
      const moved = await move({
        source,
        target,
        ranges: this.#ranges,
        fromBytes: this.#resumed?.doneBytes ?? 0,
        holesAreZeroes: this.#how === 'new',
        verify,
        report,
        reached: (doneBytes) => record.reached(doneBytes),
      });
      // Also of what an earlier restore had written and this one has found to be right.
      await target.flush();
      if (place.kind === 'absent' || place.kind === 'file') await syncFolderOf(place.name);
      removed = true;
      await record.remove();
      return moved;
    } finally {
      if (!removed) await record.close();
    }
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

/** Null: a file that is made once the record is durable. */
async function openTarget(wish: RestoreWish): Promise<Target | null> {
  const { place, source, allowLarger, dryRun } = wish;
  if (place.kind === 'absent') return null;
  if (place.kind === 'nbd') {
    const target = await openNbd(place.name, dryRun);
    try {
      checkSize(place.name, target.sizeBytes, source.sizeBytes, false);
      return target;
    } catch (error) {
      await target.close();
      throw error;
    }
  }
  checkSize(place.name, place.sizeBytes, source.sizeBytes, allowLarger);
  return await openFile(place.name, source.sizeBytes, { device: place.kind === 'device', readOnly: dryRun });
}

function checkSize(name: string, haveBytes: number, wantBytes: number, allowLarger: boolean): void {
  if (haveBytes === wantBytes || (allowLarger && haveBytes > wantBytes)) return;
  const sizes = `${printBytes(haveBytes)} (${haveBytes} bytes); the disk has ${printBytes(wantBytes)} (${wantBytes} bytes)`;
  if (haveBytes < wantBytes) {
    throw new MidmirrorError('bad-request', `${name} is too small: it has ${sizes}`, {
      hint: 'a file that does not exist yet is made as large as it has to be',
    });
  }
  throw new MidmirrorError('bad-request', `${name} is too large: it has ${sizes}`, {
    hint: 'is it the right one? For a file or device --allow-larger writes to its beginning and leaves the rest alone',
  });
}
