// The extents of segments that have left a volume's head map, found in the catalogue's runs. Only segments whose runs
// the catalogue has are covered; their runs of level 0 stay there until the segments have left the ring. Merged runs
// come in between: the fewest that cover them are taken, and looked up again now and then.
import { MidmirrorError, messageOf, Turns } from '@midmirror/basis';
import { type Catalog, coveringRuns, RunGoneError } from '@midmirror/catalog';
import { type ExtentCursor, ExtentMap } from '@midmirror/extent-map';
import type { OlderExtents, OlderSegment } from '@midmirror/live-disk';
import { type PageCache, RunLayers } from '@midmirror/runs';
import { limits } from './limits.ts';

export class OlderRuns implements OlderExtents {
  readonly #volumeId: string;
  readonly #catalog: Catalog;
  readonly #pages: PageCache;
  /** Those it answers for, oldest first. */
  #segments: readonly OlderSegment[] = [];
  #layers: RunLayers;
  #dropped = 0;
  #lookUps = 0;
  /** Of two looks at the catalogue the later one's layers count. */
  readonly #looking = new Turns();

  constructor(volumeId: string, catalog: Catalog, pages: PageCache) {
    this.#volumeId = volumeId;
    this.#catalog = catalog;
    this.#pages = pages;
    this.#layers = new RunLayers([], new ExtentMap(), pages);
  }

  cover(segments: readonly OlderSegment[]): Promise<number> {
    return this.#looking.take(async () => {
      const { stored, layers } = await this.#look(segments);
      const last = stored.at(-1)?.number ?? 0;
      if (last <= this.#reach) return this.#reach;
      this.#segments = stored;
      this.#layers = layers;
      return last;
    });
  }

  drop(last: number): void {
    this.#dropped = last;
    this.#segments = this.#segments.filter(({ number }) => number > last);
  }

  tryFind(start: number, length: number): ExtentCursor | null {
    this.#countLookUp();
    return this.#layers.tryFind(start, length);
  }

  async find(start: number, length: number): Promise<ExtentCursor> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#layers.find(start, length);
      } catch (error) {
        if (!(error instanceof MidmirrorError)) throw this.#away(error);
        if (!(error instanceof RunGoneError) || tries === limits.readTriesMax) throw error;
      }
      await this.#renew();
    }
  }

  #away(cause: unknown): MidmirrorError {
    return new MidmirrorError(
      'unavailable',
      `the catalogue can't be asked where older writes of volume ${this.#volumeId} lie: ${messageOf(cause)}`,
      { cause },
    );
  }

  get #reach(): number {
    return this.#segments.at(-1)?.number ?? 0;
  }

  /** Runs that have been merged since are fewer. */
  #countLookUp(): void {
    this.#lookUps += 1;
    if (this.#lookUps < limits.lookUpsPerRenewal) return;
    this.#lookUps = 0;
    // What it has stays right: to fail to renew it does no harm.
    this.#renew().catch(() => {});
  }

  #renew(): Promise<void> {
    return this.#looking.take(async () => {
      const reach = this.#reach;
      if (reach === 0) {
        // All has left the ring meanwhile.
        this.#layers = new RunLayers([], new ExtentMap(), this.#pages);
        return;
      }
      const { stored, layers } = await this.#look(this.#segments);
      if ((stored.at(-1)?.number ?? 0) >= this.#reach) this.#layers = layers;
      else
        throw new MidmirrorError(
          'corrupt',
          `the index lacks the run of a segment up to ${reach} of volume ${this.#volumeId}`,
          { hint: 'restart the appliance: what the index lacks is read from the journal then' },
        );
    });
  }

  /** In a turn. How many of the segments have their runs, up to the first that has not; and the fewest runs for them. */
  async #look(
    segments: readonly OlderSegment[],
  ): Promise<{ stored: readonly OlderSegment[]; layers: RunLayers }> {
    const [first, last] = [segments[0]?.number ?? 0, segments.at(-1)?.number ?? 0];
    return await this.#catalog.transaction(async (tx) => {
      const rows = await tx
        .selectFrom('run')
        .select(['source', 'to_seq'])
        .where('volume_id', '=', this.#volumeId)
        .where('side', '=', 'forward')
        .where('level', '=', 0)
        .where('source', '>=', first)
        .where('source', '<=', last)
        .execute();
      const known = new Map(rows.map(({ source, to_seq }) => [source, to_seq]));
      // A segment leaves the ring before its run goes: those that have left by now are not missed.
      const wanted = segments.filter(({ number }) => number > this.#dropped);
      const lacking = wanted.findIndex(({ number, lastSeq }) => known.get(number) !== lastSeq);
      const stored = lacking === -1 ? wanted : wanted.slice(0, lacking);
      const reach = stored.at(-1)?.number;
      const runs =
        reach === undefined
          ? []
          : await coveringRuns(tx, this.#volumeId, 'forward', stored[0]!.number, reach);
      return { stored, layers: new RunLayers(runs.reverse(), new ExtentMap(), this.#pages) };
    });
  }
}
