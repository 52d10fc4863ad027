// Versions of a range that are older than the journal: pure. From the MIM back through the snapshots: what an object
// of a snapshot holds of an address is how it was from the snapshot after the one before that holds it, too, on.
import { fromNs, type StoredRun } from '@midmirror/catalog';
import type { Version } from './history.ts';
import type { Range, RangeExtent } from './touching-runs.ts';
import type { VolumeView } from './volume-index.ts';

interface Piece {
  start: number;
  end: number;
  /** Null: on the MIM. */
  object: number | null;
  zero: boolean;
  toSeq: number;
}

interface Point {
  seq: number;
  timeNs: string;
  name: string;
}

export class SnapshotVersions {
  /** Oldest first; the MIM's is the last. */
  readonly #points: Point[];
  readonly #seqOf = new Map<number, number>();
  /** The oldest version found so far of each part of the range. */
  #pieces: Piece[];

  constructor(view: VolumeView, range: Range) {
    const { mim_seq, mim_ns } = view.volume;
    this.#points = view.snapshots
      .filter((row) => row.seq < mim_seq)
      .map((row) => ({
        seq: row.seq,
        timeNs: fromNs(row.time_ns).toString(),
        name: `snapshot ${row.snapshot}`,
      }));
    this.#points.push({ seq: mim_seq, timeNs: fromNs(mim_ns).toString(), name: 'MIM' });
    for (const row of view.snapshots) this.#seqOf.set(row.snapshot, row.seq);
    const whole = { start: range.offset, end: range.offset + range.length };
    this.#pieces = [{ ...whole, object: null, zero: false, toSeq: mim_seq }];
  }

  /** The next older run that has something of the range; the versions that it ends, newest first. */
  saved(run: StoredRun, extents: readonly RangeExtent[]): Version[] {
    const toSeq = this.#seqOf.get(run.snapshot);
    // A sync that is prepared saves for a snapshot whose point the MIM still holds.
    if (toSeq === undefined || toSeq >= this.#points.at(-1)!.seq) return [];
    const since = this.#points.find((point) => point.seq > toSeq)!;
    const versions: Version[] = [];
    const pieces: Piece[] = [];
    for (const piece of this.#pieces) {
      let at = piece.start;
      for (const { offset, length, zero } of extents) {
        const start = Math.max(at, offset);
        const end = Math.min(piece.end, offset + length);
        if (start >= end) continue;
        if (start > at) pieces.push({ ...piece, start: at, end: start });
        versions.push(versionOf({ ...piece, start, end }, since));
        pieces.push({ start, end, object: run.source, zero, toSeq });
        at = end;
      }
      if (at < piece.end) pieces.push({ ...piece, start: at });
    }
    this.#pieces = pieces;
    return versions;
  }

  /** What is as old as the history is. */
  end(): Version[] {
    return this.#pieces
      .map((piece) => versionOf(piece, this.#points[0]!))
      .sort((a, b) => b.toSeq! - a.toSeq!);
  }
}

function versionOf({ start, end, object, zero, toSeq }: Piece, since: Point): Version {
  return {
    offset: start,
    length: end - start,
    seq: null,
    timeNs: since.timeNs,
    fromSeq: since.seq,
    toSeq,
    where: object === null ? 'MIM' : `${since.name} (object ${object})`,
    kind: zero ? 'zeroes' : 'data',
  };
}
