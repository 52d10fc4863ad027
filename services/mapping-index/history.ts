// Every retained version of a range: the writes of the journal that touched it, and what older snapshots hold.
// Newest first, and no further than asked: the first rows cost the same however long the history is.
import { type Catalog, oldestSnapshotOf, RunGoneError, runsOf, type VolumeRow } from '@midmirror/catalog';
import type { Requests } from '@midmirror/events';
import { type Batch, type Descriptor, DescriptorKind, descriptorsOf } from '@midmirror/journal';
import { SnapshotPages } from './snapshot-pages.ts';
import { SnapshotVersions } from './snapshot-versions.ts';
import { batchesOf } from './tail.ts';
import { touchingRuns } from './touching-runs.ts';
import type { VolumeIndex } from './volume-index.ts';

export type Version = Omit<Requests['mapping-index.history']['answer']['versions'][number], 'gap'>;

interface Asked {
  offset: number;
  length: number;
  limit: number;
  latestSeq: number;
}

const KIND_NAMES: Readonly<Record<number, Version['kind']>> = {
  [DescriptorKind.write]: 'data',
  [DescriptorKind.zeroes]: 'zeroes',
  [DescriptorKind.trim]: 'trim',
};

/** Newest first; at most `limit`. In a turn of the volume. */
export async function historyOf(
  index: VolumeIndex,
  catalog: Catalog,
  volume: VolumeRow,
  asked: Asked,
): Promise<{ versions: Version[]; truncated: boolean }> {
  const versions: Version[] = [];
  for await (const some of versionsOf(index, catalog, volume, asked)) {
    versions.push(...some);
    if (versions.length > asked.limit) return { versions: versions.slice(0, asked.limit), truncated: true };
  }
  return { versions, truncated: false };
}

async function* versionsOf(
  index: VolumeIndex,
  catalog: Catalog,
  volume: VolumeRow,
  asked: Asked,
): AsyncGenerator<Version[]> {
  yield* journaledVersions(index, catalog, volume, asked);
  const { db } = catalog;
  const units = { first: 0, last: Number.MAX_SAFE_INTEGER };
  const older = new SnapshotVersions(volume, asked);
  const snapshots = new SnapshotPages(db, index.id);
  for await (const { run, extents } of touchingRuns(db, index.pages, index.id, 'backward', units, asked)) {
    const snapshot = await snapshots.find(run.snapshot);
    // Dropped since the runs were looked up: what it had saved is its neighbour's now.
    if (snapshot === null) throw new RunGoneError(run);
    yield older.saved(run.source, extents, snapshot);
  }
  yield older.end(await oldestSnapshotOf(db, index.id));
}

/** The journal's writes on the range after the MIM's point, newest first, a segment at a time. */
async function* journaledVersions(
  index: VolumeIndex,
  catalog: Catalog,
  volume: VolumeRow,
  asked: Asked,
): AsyncGenerator<Version[]> {
  const mimSeq = volume.mim_seq;
  // Before the runs: what is sealed meanwhile leaves the tail for them.
  const tail = index.tail.segments;
  const runs = await runsOf(catalog.db, index.id, 'forward');
  const stored = new Set(runs.map((run) => run.source));
  for (const segment of tail.toReversed()) {
    if (stored.has(segment.segment)) continue;
    const found = new SegmentVersions(segment.segment, mimSeq, asked);
    for (const { batch, bytes, at } of batchesOf(segment))
      for (const d of descriptorsOf(bytes, at, batch)) found.take(batch, d);
    yield found.newestFirst();
  }
  const wanted = runs.filter((run) => run.to_seq > mimSeq && run.from_seq <= asked.latestSeq);
  if (wanted.length === 0) return;
  const units = { first: wanted[0]!.source, last: wanted.at(-1)!.source };
  // A write that touched the range has left something of itself, or of one after it, in its segment's run.
  for await (const { run } of touchingRuns(catalog.db, index.pages, index.id, 'forward', units, asked)) {
    const lastSeq = Math.min(asked.latestSeq, run.to_seq);
    yield await index.pieces.inSegment(run.source, async (reader) => {
      const found = new SegmentVersions(run.source, mimSeq, { ...asked, latestSeq: lastSeq });
      for await (const { batch, bytes } of reader.batches(mimSeq, lastSeq))
        for (const d of descriptorsOf(bytes, 0, batch)) found.take(batch, d);
      return found.newestFirst();
    });
  }
}

/** The writes of one segment on a range. */
class SegmentVersions {
  readonly #segment: number;
  readonly #mimSeq: number;
  readonly #asked: Asked;
  readonly #versions: Version[] = [];

  constructor(segment: number, mimSeq: number, asked: Asked) {
    this.#segment = segment;
    this.#mimSeq = mimSeq;
    this.#asked = asked;
  }

  take(batch: Batch, d: Descriptor): void {
    const { offset, length, latestSeq } = this.#asked;
    if (d.kind === DescriptorKind.mark || d.seq <= this.#mimSeq || d.seq > latestSeq) return;
    const start = Math.max(d.start, offset);
    const end = Math.min(d.start + d.length, offset + length);
    if (start >= end) return;
    const last = this.#versions.at(-1);
    if (last?.seq === d.seq && last.offset + last.length === start) last.length += end - start;
    else {
      this.#versions.push({
        offset: start,
        length: end - start,
        seq: d.seq,
        timeNs: (batch.timeNs + BigInt(d.seq - batch.firstSeq)).toString(),
        fromSeq: d.seq,
        toSeq: null,
        where: `segment ${this.#segment}`,
        kind: KIND_NAMES[d.kind] ?? 'data',
      });
    }
  }

  newestFirst(): Version[] {
    return this.#versions.reverse();
  }
}
