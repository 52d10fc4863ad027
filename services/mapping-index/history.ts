// Every retained version of a range: the writes of the journal that touched it, and what older snapshots hold.
import { type Catalog, fromNs, runsOf } from '@midmirror/catalog';
import type { Requests } from '@midmirror/events';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { type Batch, type Descriptor, DescriptorKind, descriptorsOf } from '@midmirror/journal';
import { batchesOf } from './tail.ts';
import type { VolumeIndex, VolumeView } from './volume-index.ts';

export type Version = Requests['mapping-index.history']['answer']['versions'][number];

const KIND_NAMES: Readonly<Record<number, Version['kind']>> = {
  [DescriptorKind.write]: 'data',
  [DescriptorKind.zeroes]: 'zeroes',
  [DescriptorKind.trim]: 'trim',
};

/** Newest first; at most `limit`. In a turn of the volume. */
export async function historyOf(
  index: VolumeIndex,
  catalog: Catalog,
  view: VolumeView,
  range: { offset: number; length: number; limit: number; latestSeq: number },
): Promise<{ versions: Version[]; truncated: boolean }> {
  const older = await olderVersions(index, view, range);
  const newer = await journaledVersions(index, catalog, view, range);
  const versions = [...older, ...newer].reverse();
  return { versions: versions.slice(0, range.limit), truncated: versions.length > range.limit };
}

/** What snapshots and the MIM hold of the range, oldest first; a place that several share is one version. */
async function olderVersions(
  index: VolumeIndex,
  view: VolumeView,
  range: { offset: number; length: number },
): Promise<Version[]> {
  const versions: Version[] = [];
  let before = new Map<string, Version>();
  const points = view.snapshots
    .filter((row) => row.seq < view.volume.mim_seq)
    .map((row) => ({ ...row, name: `snapshot ${row.snapshot}` }));
  const steps = [...points, { seq: view.volume.mim_seq, snapshot: Number.MAX_SAFE_INTEGER, name: 'MIM' }];
  for (const step of steps) {
    const map = new ExtentMap();
    if (step.name !== 'MIM') await index.backwardMap(step.snapshot, map);
    const now = new Map<string, Version>();
    for (const part of partsOf(map, range)) {
      const key = `${part.offset}+${part.length}@${part.place}`;
      const known = before.get(key);
      if (known !== undefined) {
        known.toSeq = step.seq;
        now.set(key, known);
        continue;
      }
      const where = part.place === 'mim' ? 'MIM' : `${step.name} (${part.place})`;
      const version: Version = {
        offset: part.offset,
        length: part.length,
        seq: null,
        timeNs: 'time_ns' in step ? fromNs(step.time_ns).toString() : fromNs(view.volume.mim_ns).toString(),
        fromSeq: step.seq,
        toSeq: step.seq,
        where,
        kind: part.zero ? 'zeroes' : 'data',
      };
      versions.push(version);
      now.set(key, version);
    }
    before = now;
  }
  return versions;
}

function partsOf(
  map: ExtentMap,
  range: { offset: number; length: number },
): { offset: number; length: number; place: string; zero: boolean }[] {
  const parts: { offset: number; length: number; place: string; zero: boolean }[] = [];
  const end = range.offset + range.length;
  const c = map.cursor(range.offset);
  for (let at = range.offset; at < end; ) {
    if (!c.valid || c.start > at) {
      const until = c.valid ? Math.min(c.start, end) : end;
      parts.push({ offset: at, length: until - at, place: 'mim', zero: false });
      at = until;
      continue;
    }
    const until = Math.min(c.end, end);
    parts.push({
      offset: at,
      length: until - at,
      place: `object ${c.source}`,
      zero: (c.flags & ExtentFlag.zero) !== 0,
    });
    at = until;
    c.next();
  }
  return parts;
}

/** The journal's writes on the range after the MIM's point, oldest first. */
async function journaledVersions(
  index: VolumeIndex,
  catalog: Catalog,
  view: VolumeView,
  range: { offset: number; length: number; latestSeq: number },
): Promise<Version[]> {
  const versions: Version[] = [];
  const take = (batch: Batch, d: Descriptor, segment: number): void => {
    if (d.kind === DescriptorKind.mark || d.seq <= view.volume.mim_seq || d.seq > range.latestSeq) return;
    const start = Math.max(d.start, range.offset);
    const end = Math.min(d.start + d.length, range.offset + range.length);
    if (start >= end) return;
    const last = versions.at(-1);
    if (last?.seq === d.seq && last.offset + last.length === start) last.length += end - start;
    else {
      versions.push({
        offset: start,
        length: end - start,
        seq: d.seq,
        timeNs: (batch.timeNs + BigInt(d.seq - batch.firstSeq)).toString(),
        fromSeq: d.seq,
        toSeq: null,
        where: `segment ${segment}`,
        kind: KIND_NAMES[d.kind] ?? 'data',
      });
    }
  };
  const tail = index.tail.segments;
  const stored = new Set<number>();
  for (const run of await runsOf(catalog.db, index.id, 'forward')) {
    stored.add(run.source);
    if (run.to_seq <= view.volume.mim_seq || run.from_seq > range.latestSeq) continue;
    const reader = await index.pieces.segment(run.source);
    const footer = await reader.footer();
    const c = footer?.extents.cursor(range.offset);
    // A write that touched the range has left something of itself, or of one after it, in the net extents.
    if (c !== undefined && (!c.valid || c.start >= range.offset + range.length)) continue;
    for await (const { batch, bytes } of reader.batches(view.volume.mim_seq, range.latestSeq)) {
      for (const d of descriptorsOf(bytes, 0, batch)) take(batch, d, run.source);
    }
  }
  for (const segment of tail) {
    if (stored.has(segment.segment)) continue;
    for (const { batch, bytes, at } of batchesOf(segment))
      for (const d of descriptorsOf(bytes, at, batch)) take(batch, d, segment.segment);
  }
  return versions;
}
