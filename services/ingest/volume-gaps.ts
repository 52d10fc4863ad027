// The gaps of one volume: opened and closed at a place in the journal, kept in the pool, told to the others. The file in
// the pool comes after the journal's record and before the catalogue's rows, and is what counts: a crash in between
// leaves what nobody was answered.
import { MidmirrorError, Turns } from '@midmirror/basis';
import {
  type Catalog,
  type CatalogTransaction,
  gapsOf,
  snapshotsOf,
  storeGaps,
  volumeById,
} from '@midmirror/catalog';
import type { DomainEvent } from '@midmirror/events';
import type { GapRecord } from '@midmirror/journal';
import type { RecoveredGap } from '@midmirror/live-disk';
import { type Gap, type GapEnd, joinOldest, openedGap, openGapOf, printTime } from '@midmirror/point';
import { poolLimits, type PoolFiles, readGaps, type VolumePaths, writeGaps } from '@midmirror/pool';

export interface GapContext {
  files: PoolFiles;
  paths: VolumePaths;
  epoch: number;
  catalog: Catalog;
  volume: { id: string; name: string };
  /** Journals it behind all that was answered, durably. */
  journal: (record: GapRecord) => Promise<GapEnd>;
  /** Of a write that may have left the journal for the MIM; earlier where nobody knows. */
  timeOf: (seq: number) => Promise<bigint>;
  /** Throws when the volume is another's by now. */
  refuseUnlessOurs: () => void;
  commit: (event: DomainEvent, change: (tx: CatalogTransaction) => Promise<void>) => Promise<void>;
}

export class VolumeGaps {
  readonly #context: GapContext;
  readonly #turns = new Turns();
  #gaps: readonly Gap[];
  #opening = false;
  /** What the catalogue has not heard of. */
  readonly #untold: DomainEvent[] = [];

  private constructor(context: GapContext, gaps: readonly Gap[]) {
    this.#context = context;
    this.#gaps = gaps;
  }

  /**
   * As the owner before left them. Of what it had journaled and not kept, which nobody was answered, openings count:
   * they take moments away. Closings would give some back: others may have been told since that the gap is open.
   */
  static async open(context: GapContext, recovered: readonly RecoveredGap[]): Promise<VolumeGaps> {
    const { files, paths } = context;
    const gaps = new VolumeGaps(context, await readGaps(files, paths));
    for (const record of recovered) {
      const known = gaps.#gaps.at(-1)?.number ?? 0;
      if (record.end === 'opened' && record.gap > known && gaps.open === null)
        await gaps.#keep(await gaps.#openedAt(record, record.behindMs, record.reason));
    }
    const last = gaps.#gaps.at(-1);
    if (last === undefined) {
      // What the pool does not know of any more is nobody's to close.
      const { catalog, volume } = context;
      if ((await gapsOf(catalog.db, volume.id)).length > 0)
        await catalog.transaction((tx) => storeGaps(tx, volume.id, []));
      return gaps;
    }
    // From now on the file of the owner before counts no more, whatever it still writes.
    await writeGaps(files, paths, context.epoch, gaps.#gaps);
    gaps.#untold.push(gaps.#openedEvent(last), ...gaps.#closedEvent(last));
    await gaps.tell();
    return gaps;
  }

  get open(): Gap | null {
    return openGapOf(this.#gaps);
  }

  /** Whether the catalogue has heard of all. */
  get told(): boolean {
    return this.#untold.length === 0;
  }

  /** A mark promises a consistent moment. */
  refuseMark(name: string): void {
    const { open } = this;
    if (open === null && !this.#opening) return;
    const volume = this.#context.volume.name;
    const since =
      open === null ? 'is being opened' : `is open since write ${open.fromSeq} (${printTime(open.fromNs)})`;
    throw new MidmirrorError(
      'conflict',
      `mark "${name}": a gap of volume "${volume}" ${since}, no moment is consistent`,
      {
        hint: `a replicator closes it when it has caught up; \`mim gap close ${volume}\` does when you know that all has been copied`,
      },
    );
  }

  /** The one that is open, or a new one. */
  openGap(behindMs: number, reason: string | null): Promise<Gap> {
    return this.#turns.take(async () => {
      await this.tell();
      if (this.open !== null) return this.open;
      this.#opening = true;
      try {
        const number = (this.#gaps.at(-1)?.number ?? 0) + 1;
        const at = await this.#context.journal({ gap: number, end: 'opened', behindMs, reason });
        const gap = await this.#openedAt(at, behindMs, reason);
        await this.#keep(gap);
        this.#untold.push(this.#openedEvent(gap));
        await this.tell();
        return gap;
      } finally {
        this.#opening = false;
      }
    });
  }

  /** Null: none is open. */
  closeGap(): Promise<Gap | null> {
    return this.#turns.take(async () => {
      await this.tell();
      const { open } = this;
      if (open === null) return null;
      const record = { gap: open.number, end: 'closed', behindMs: 0, reason: null } as const;
      const { seq, timeNs } = await this.#context.journal(record);
      const gap: Gap = { ...open, toSeq: seq, toNs: timeNs };
      await this.#keep(gap);
      this.#untold.push(...this.#closedEvent(gap));
      await this.tell();
      return gap;
    });
  }

  /** The catalogue hears of what it has not heard of. */
  async tell(): Promise<void> {
    const { commit, volume } = this.#context;
    for (let event = this.#untold[0]; event !== undefined; event = this.#untold[0]) {
      const gaps = this.#gaps;
      await commit(event, (tx) => storeGaps(tx, volume.id, gaps));
      if (this.#untold[0] === event) this.#untold.shift();
    }
  }

  async #openedAt(at: GapEnd, behindMs: number, reason: string | null): Promise<Gap> {
    const writeNs = await this.#context.timeOf(at.seq);
    return openedGap(this.#gaps, at, { writeNs, behindNs: BigInt(behindMs) * 1_000_000n }, reason);
  }

  /** In the pool, durably; in the place of one of the same number. */
  async #keep(gap: Gap): Promise<void> {
    const { files, paths, epoch, refuseUnlessOurs } = this.#context;
    const gaps = await this.#bounded([...this.#gaps.filter(({ number }) => number !== gap.number), gap]);
    await writeGaps(files, paths, epoch, gaps);
    // Whoever has taken the volume over since has not seen it: nobody is answered.
    refuseUnlessOurs();
    this.#gaps = gaps;
  }

  /** Those in which no retained point can lie go first; then the oldest two become one. */
  async #bounded(gaps: readonly Gap[]): Promise<readonly Gap[]> {
    if (gaps.length <= poolLimits.gapsMax) return gaps;
    const { catalog, volume } = this.#context;
    const { mim_seq } = await volumeById(catalog.db, volume.id);
    const snapshots = await snapshotsOf(catalog.db, volume.id);
    const wanted = gaps.filter(
      ({ fromSeq, toSeq }) =>
        toSeq === null || toSeq >= mim_seq || snapshots.some(({ seq }) => seq >= fromSeq && seq <= toSeq),
    );
    return joinOldest(wanted, poolLimits.gapsMax);
  }

  #openedEvent({ number, fromSeq, fromNs, reason }: Gap): DomainEvent {
    const data = { gap: number, fromSeq, fromTimeNs: String(fromNs), reason };
    return { type: 'gap.opened', volumeId: this.#context.volume.id, timeNs: String(fromNs), data };
  }

  #closedEvent({ number, fromSeq, toSeq, toNs }: Gap): DomainEvent[] {
    if (toSeq === null || toNs === null) return [];
    const data = { gap: number, fromSeq, toSeq, toTimeNs: String(toNs) };
    return [{ type: 'gap.closed', volumeId: this.#context.volume.id, timeNs: String(toNs), data }];
  }
}
