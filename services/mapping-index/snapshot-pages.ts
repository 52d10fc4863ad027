// Snapshots for who walks back through history: read a page at a time, so that the first of them don't wait for all.
import { type CatalogReader, type SnapshotRow, snapshotAbove, snapshotsBelow } from '@midmirror/catalog';
import { limits } from './limits.ts';

export interface SnapshotInRow {
  row: SnapshotRow;
  /** The next newer; undefined: it is the newest. */
  newer: SnapshotRow | undefined;
}

export class SnapshotPages {
  readonly #db: CatalogReader;
  readonly #volumeId: string;
  /** Newest first, from where the last question was on. */
  #page: SnapshotRow[] = [];
  #newer: SnapshotRow | undefined;

  constructor(db: CatalogReader, volumeId: string) {
    this.#db = db;
    this.#volumeId = volumeId;
  }

  /** Numbers are asked for in descending order. Null: it has been dropped. */
  async find(snapshot: number): Promise<SnapshotInRow | null> {
    const at = this.#page.findIndex((row) => row.snapshot <= snapshot);
    if (at > 0) this.#newer = this.#page[at - 1];
    if (at >= 0) this.#page.splice(0, at);
    else {
      this.#newer = await snapshotAbove(this.#db, this.#volumeId, snapshot);
      this.#page = await snapshotsBelow(this.#db, this.#volumeId, snapshot + 1, limits.snapshotsPerPage);
    }
    const row = this.#page[0];
    return row?.snapshot === snapshot ? { row, newer: this.#newer } : null;
  }
}
