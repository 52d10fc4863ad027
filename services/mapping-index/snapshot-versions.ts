// Versions of a range that are older than the journal: pure. From the MIM back through the snapshots: what an object
// of a snapshot holds of an address is how it was from the snapshot after the one before that holds it, too, on.
import { fromNs, type SnapshotRow, type VolumeRow } from '@midmirror/catalog';
import type { Version } from './history.ts';
import type { SnapshotInRow } from './snapshot-pages.ts';
import type { Range, RangeExtent } from './touching-runs.ts';

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
  readonly #mim: Point;
  /** The oldest version found so far of each part of the range. */
  #pieces: Piece[];

  constructor({ mim_seq, mim_ns }: VolumeRow, range: Range) {
    this.#mim = { seq: mim_seq, timeNs: fromNs(mim_ns).toString(), name: 'MIM' };
    const whole = { start: range.offset, end: range.offset + range.length };
    this.#pieces = [{ ...whole, object: null, zero: false, toSeq: mim_seq }];
  }

  /** What the next older object that has something of the range holds; the versions that it ends, newest first. */
  saved(object: number, extents: readonly RangeExtent[], snapshot: SnapshotInRow): Version[] {
    const toSeq = snapshot.row.seq;
    // A sync that is prepared saves for a snapshot whose point the MIM still holds.
    if (toSeq >= this.#mim.seq) return [];
    const since = this.#pointOf(snapshot.newer);
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
        pieces.push({ start, end, object, zero, toSeq });
        at = end;
      }
      if (at < piece.end) pieces.push({ ...piece, start: at });
    }
    this.#pieces = pieces;
    return versions;
  }

  /** What is as old as the history is. */
  end(oldest: SnapshotRow | undefined): Version[] {
    return this.#pieces
      .map((piece) => versionOf(piece, this.#pointOf(oldest)))
      .sort((a, b) => b.toSeq! - a.toSeq!);
  }

  /** A snapshot's, as long as the MIM is past it. */
  #pointOf(row: SnapshotRow | undefined): Point {
    if (row === undefined || row.seq >= this.#mim.seq) return this.#mim;
    return { seq: row.seq, timeNs: fromNs(row.time_ns).toString(), name: `snapshot ${row.snapshot}` };
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
