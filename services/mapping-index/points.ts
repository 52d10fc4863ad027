// Finds points: from what people ask (a time, a mark, a number) to a write, and from a write to its time. Looks
// in the segments' batch indexes and in the tail. All of it in a turn of the volume.
import { MidmirrorError } from '@midmirror/basis';
import {
  type Catalog,
  fromNs,
  gapAtSeq,
  gapAtTime,
  gapsOf,
  markByName,
  oldestSnapshotOf,
  openGapIn,
  type SnapshotRow,
  snapshotByNumber,
  snapshotOfSeq,
  snapshotsAround,
  snapshotsBelow,
  snapshotOutside,
  toNs,
  type VolumeRow,
} from '@midmirror/catalog';
import type { ChosenPoint } from '@midmirror/events';
import type { SegmentBatch } from '@midmirror/journal';
import { type Gap, parsePoint, printTime } from '@midmirror/point';
import { limits } from './limits.ts';
import { type AskedOfGap, inGap } from './refuse-gap.ts';
import { lastBatch } from './tail.ts';
import type { VolumeIndex } from './volume-index.ts';

/** A write and its time. */
export interface Moment {
  seq: number;
  timeNs: bigint;
}

type BatchTimes = Pick<SegmentBatch, 'firstSeq' | 'timeNs' | 'writeCount'>;

export class Points {
  readonly #index: VolumeIndex;
  readonly #catalog: Catalog;
  readonly #batches = new Map<number, BatchTimes[]>();

  constructor(index: VolumeIndex, catalog: Catalog) {
    this.#index = index;
    this.#catalog = catalog;
  }

  /** The point that `text` names. Throws `bad-request`, `not-found` (mark, snapshot) or `point-unavailable`. */
  async choose(volume: VolumeRow, text: string, end: Moment, nowNs: bigint): Promise<ChosenPoint> {
    // The journal's end may be a mark's time; a point's time is that of its write. A sync may have passed it since.
    const seq = Math.max(end.seq, volume.mim_seq);
    const latest: Moment = { seq, timeNs: await this.timeOf(volume, seq) };
    const asked = parsePoint(text, nowNs);
    const exactly = ({ seq, timeNs }: Moment): ChosenPoint => ({
      seq,
      timeNs: timeNs.toString(),
      distanceMs: null,
    });
    switch (asked.kind) {
      case 'latest': {
        const gap = await openGapIn(this.#catalog.db, volume.id);
        if (gap !== null) throw await this.#inGap(volume, latest, text, gap, { timeNs: nowNs });
        return exactly(latest);
      }
      case 'seq':
        return exactly(await this.#atSeq(volume, asked.seq, latest, text));
      case 'mark': {
        const mark = await markByName(this.#catalog.db, volume.id, asked.name);
        if (mark === undefined) {
          throw new MidmirrorError('not-found', `volume "${volume.name}" has no mark "${asked.name}"`, {
            hint: `\`mim points ${volume.name}\` lists them`,
          });
        }
        await this.#refuseInGap(volume, mark.seq, latest, text);
        await this.#refuseGone(volume, mark.seq, latest, text);
        return exactly({ seq: mark.seq, timeNs: fromNs(mark.time_ns) });
      }
      case 'snapshot': {
        const { db } = this.#catalog;
        const row = await snapshotByNumber(db, volume.id, asked.snapshot);
        if (row === undefined) {
          const newest = await snapshotsBelow(db, volume.id, Number.MAX_SAFE_INTEGER, 20);
          const there = newest.map(({ snapshot }) => snapshot).reverse();
          throw new MidmirrorError('not-found', `volume "${volume.name}" has no snapshot ${asked.snapshot}`, {
            hint: `there are: ${there.join(', ') || 'none'}`,
          });
        }
        await this.#refuseInGap(volume, row.seq, latest, text);
        return exactly({ seq: row.seq, timeNs: fromNs(row.time_ns) });
      }
      case 'time': {
        const gap = await gapAtTime(this.#catalog.db, volume.id, asked.timeNs);
        if (gap !== null) throw await this.#inGap(volume, latest, text, gap, { timeNs: asked.timeNs });
        const found = await this.#atTime(volume, asked.timeNs, latest, text);
        return {
          seq: found.seq,
          timeNs: found.timeNs.toString(),
          distanceMs: Number(found.timeNs - asked.timeNs) / 1e6,
        };
      }
    }
  }

  /** When a write was made: of the window, a snapshot, or the volume's beginning. */
  async timeOf(volume: VolumeRow, seq: number): Promise<bigint> {
    if (seq === volume.mim_seq) return fromNs(volume.mim_ns);
    const { id, mim_seq } = volume;
    const snapshot = seq < mim_seq ? await snapshotOfSeq(this.#catalog.db, id, seq) : undefined;
    if (snapshot !== undefined) return fromNs(snapshot.time_ns);
    for (const segment of this.#index.tail.segments.toReversed()) {
      const batch = lastBatch(
        segment,
        ({ firstSeq }) => firstSeq <= seq,
        ({ firstSeq, writeCount }) => firstSeq <= seq && writeCount > 0,
      );
      const found = batch === undefined ? null : timeIn([batch], seq);
      if (found !== null) return found;
      if (batch !== undefined) break;
    }
    const row = await this.#catalog.db
      .selectFrom('segment')
      .select(['segment', 'last_seq'])
      .where('volume_id', '=', volume.id)
      .where('first_seq', '<=', seq)
      .where('last_seq', '>=', seq)
      .executeTakeFirst();
    const found = row === undefined ? null : timeIn(await this.#batchesOf(row.segment, row.last_seq), seq);
    if (found === null)
      throw new MidmirrorError('not-found', `write ${seq} is in no segment of volume "${volume.name}"`);
    return found;
  }

  forgetSegment(segment: number): void {
    this.#batches.delete(segment);
  }

  /** The earliest point that can be read. */
  async #earliest(volume: VolumeRow): Promise<Moment> {
    const oldest = await oldestSnapshotOf(this.#catalog.db, volume.id);
    const { mim_seq, mim_ns } = volume;
    return oldest !== undefined && oldest.seq < mim_seq
      ? { seq: oldest.seq, timeNs: fromNs(oldest.time_ns) }
      : { seq: mim_seq, timeNs: fromNs(mim_ns) };
  }

  async #atSeq(volume: VolumeRow, seq: number, latest: Moment, text: string): Promise<Moment> {
    if (seq <= latest.seq) await this.#refuseInGap(volume, seq, latest, text);
    if (seq === latest.seq) return latest;
    await this.#refuseGone(volume, seq, latest, text);
    return { seq, timeNs: await this.timeOf(volume, seq) };
  }

  async #refuseInGap(volume: VolumeRow, seq: number, latest: Moment, text: string): Promise<void> {
    const gap = await gapAtSeq(this.#catalog.db, volume.id, seq);
    if (gap !== null) throw await this.#inGap(volume, latest, text, gap, { seq });
  }

  /** Its ends are points unless a sync has passed them; then the nearest snapshots outside are. */
  async #inGap(
    volume: VolumeRow,
    latest: Moment,
    text: string,
    gap: Gap,
    asked: AskedOfGap,
  ): Promise<MidmirrorError> {
    const { db } = this.#catalog;
    const isKept = async (seq: number): Promise<boolean> =>
      (seq >= volume.mim_seq && seq <= latest.seq) || (await snapshotOfSeq(db, volume.id, seq)) !== undefined;
    const snapshot = async (side: 'before' | 'after', seq: number): Promise<Moment | null> => {
      const row = await snapshotOutside(db, volume.id, side, seq);
      return row === undefined ? null : { seq: row.seq, timeNs: fromNs(row.time_ns) };
    };
    const { fromSeq, fromNs: sinceNs, toSeq, toNs: untilNs } = gap;
    const before = (await isKept(fromSeq))
      ? { seq: fromSeq, timeNs: sinceNs }
      : await snapshot('before', fromSeq);
    let after: Moment | null = null;
    if (toSeq !== null && untilNs !== null) {
      if (await isKept(toSeq)) after = { seq: toSeq, timeNs: untilNs };
      else after = await snapshot('after', toSeq);
      if (after === null && (await gapAtSeq(db, volume.id, volume.mim_seq)) === null)
        after = { seq: volume.mim_seq, timeNs: fromNs(volume.mim_ns) };
    }
    return inGap(volume.name, text, asked, gap, { before, after });
  }

  async #refuseGone(volume: VolumeRow, seq: number, latest: Moment, text: string): Promise<void> {
    const inWindow = seq >= volume.mim_seq && seq <= latest.seq;
    if (!inWindow && (await snapshotOfSeq(this.#catalog.db, volume.id, seq)) === undefined)
      throw await this.#unavailable(volume, latest, text);
  }

  async #atTime(volume: VolumeRow, timeNs: bigint, latest: Moment, text: string): Promise<Moment> {
    if (timeNs >= latest.timeNs) return latest;
    const mim: Moment = { seq: volume.mim_seq, timeNs: fromNs(volume.mim_ns) };
    if (timeNs >= mim.timeNs) {
      const found = await this.#lastWriteBy(timeNs, volume.id, mim.seq);
      return found === null || found.seq <= mim.seq ? mim : found;
    }
    // An older one ends before this one begins.
    const { before } = await snapshotsAround(this.#catalog.db, volume.id, timeNs);
    if (before?.until_ns != null && timeNs < fromNs(before.until_ns))
      return { seq: before.seq, timeNs: fromNs(before.time_ns) };
    throw await this.#unavailable(volume, latest, text, timeNs);
  }

  async #lastWriteBy(timeNs: bigint, volumeId: string, mimSeq: number): Promise<Moment | null> {
    const tail = this.#index.tail.segments;
    for (const segment of tail.toReversed()) {
      const batch = lastBatch(
        segment,
        (message) => message.timeNs <= timeNs,
        (candidate) => candidate.timeNs <= timeNs && candidate.writeCount > 0,
      );
      if (batch !== undefined) return lastBy([batch], timeNs);
    }
    const rows = await this.#catalog.db
      .selectFrom('segment')
      .select(['segment', 'last_seq'])
      .where('volume_id', '=', volumeId)
      .where('last_seq', '>', mimSeq)
      .where('first_ns', '<=', toNs(timeNs))
      .orderBy('segment', 'desc')
      .execute();
    for (const { segment, last_seq } of rows) {
      const found = lastBy(await this.#batchesOf(segment, last_seq), timeNs);
      if (found !== null) return found;
    }
    return null;
  }

  /** Of a sealed segment that ends with write `lastSeq`. */
  async #batchesOf(segment: number, lastSeq: number): Promise<BatchTimes[]> {
    const known = this.#batches.get(segment);
    if (known !== undefined) return known;
    // A file that was open before a takeover may be the displaced owner's, which ends in another way or not at all.
    const footer = await this.#index.pieces.inSegment(segment, async (reader) => {
      const found = await reader.footer();
      if (found?.lastSeq === lastSeq) return found;
      const ends = found === null ? 'has no footer' : `ends with write ${found.lastSeq}`;
      throw new MidmirrorError(
        'corrupt',
        `segment ${segment} of volume "${this.#index.name}" was sealed with write ${lastSeq} and ${ends}`,
      );
    });
    if (this.#batches.size >= limits.batchIndexesMax)
      this.#batches.delete(this.#batches.keys().next().value!);
    this.#batches.set(segment, footer.batches);
    return footer.batches;
  }

  /** Snapshots to offer in the place of one that isn't there, oldest first: those around a time, or the newest. */
  async #near(volume: VolumeRow, timeNs: bigint | null): Promise<SnapshotRow[]> {
    const { db } = this.#catalog;
    if (timeNs === null) return (await snapshotsBelow(db, volume.id, Number.MAX_SAFE_INTEGER, 3)).reverse();
    const { before, after } = await snapshotsAround(db, volume.id, timeNs);
    return [before, after].filter((row) => row !== undefined);
  }

  async #unavailable(
    volume: VolumeRow,
    latest: Moment,
    text: string,
    timeNs: bigint | null = null,
  ): Promise<MidmirrorError> {
    const earliest = await this.#earliest(volume);
    const window = `every write from ${volume.mim_seq} (${printTime(fromNs(volume.mim_ns))}) to ${latest.seq} (${printTime(latest.timeNs)})`;
    const gaps = (await gapsOf(this.#catalog.db, volume.id)).filter(
      ({ toSeq }) => (toSeq ?? latest.seq) > volume.mim_seq,
    );
    const but =
      gaps.length === 0 ? '' : `, but for ${gaps.length} gaps (\`mim points ${volume.name}\` lists them)`;
    const near = await this.#near(volume, timeNs);
    const older = near.map((row) => `snap:${row.snapshot} (${printTime(fromNs(row.time_ns))})`).join(', ');
    return new MidmirrorError(
      'point-unavailable',
      `${text} is not a point that volume "${volume.name}" still has`,
      {
        hint: `it has ${window}${but}${older === '' ? '' : `; older: ${older}`}`,
        details: {
          earliestSeq: earliest.seq,
          earliestTime: printTime(earliest.timeNs),
          windowSeq: volume.mim_seq,
          windowTime: printTime(fromNs(volume.mim_ns)),
          latestSeq: latest.seq,
          latestTime: printTime(latest.timeNs),
        },
      },
    );
  }
}

/** False: `-5m` and `latest` mean another point whenever they are asked. */
export function staysPut(text: string): boolean {
  return !text.startsWith('-') && text !== 'latest';
}

/** The last write at or before a time; null: none of these batches. */
function lastBy(batches: readonly BatchTimes[], timeNs: bigint): Moment | null {
  for (let i = batches.length - 1; i >= 0; i -= 1) {
    const { firstSeq, timeNs: firstNs, writeCount } = batches[i]!;
    if (writeCount === 0 || firstNs > timeNs) continue;
    const into = Number(timeNs - firstNs) < writeCount ? Number(timeNs - firstNs) : writeCount - 1;
    return { seq: firstSeq + into, timeNs: firstNs + BigInt(into) };
  }
  return null;
}

function timeIn(batches: readonly BatchTimes[], seq: number): bigint | null {
  const batch = batches.find(({ firstSeq, writeCount }) => seq >= firstSeq && seq < firstSeq + writeCount);
  return batch === undefined ? null : batch.timeNs + BigInt(seq - batch.firstSeq);
}
