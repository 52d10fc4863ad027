// What people see of a volume, its points and its clones: read models over the catalogue and the services' own
// answers. Times are RFC 3339 with zone.
import { ask, type Bus } from '@midmirror/bus';
import {
  type Catalog,
  fromNs,
  gapsOf,
  oldestSnapshotOf,
  openGapIn,
  type SnapshotRow,
  toNs,
  type VerdictRow,
  verdictsOf,
  type VolumeRow,
} from '@midmirror/catalog';
import type { ToldCheckEnd } from '@midmirror/events';
import { parsePolicy } from '@midmirror/policy';
import { exportUri } from '@midmirror/nbd';
import { type Gap, gapAroundSeq, printTime } from '@midmirror/point';
import { tapePoints } from './tape-view.ts';

export interface ViewContext {
  catalog: Catalog;
  bus: Bus;
  nbdUri: () => string | null;
}

export async function volumeView({ catalog, bus, nbdUri }: ViewContext, volume: VolumeRow) {
  const status = await ask(bus, 'ingest.status', { volumeId: volume.id });
  const count = async (table: 'snapshot' | 'mark' | 'clone'): Promise<number> => {
    const row = await catalog.db
      .selectFrom(table)
      .select((e) => e.fn.countAll<number>().as('n'))
      .where('volume_id', '=', volume.id)
      .executeTakeFirst();
    return Number(row?.n ?? 0);
  };
  const oldest = await oldestSnapshotOf(catalog.db, volume.id);
  const gap = await openGapIn(catalog.db, volume.id);
  const policy = parsePolicy(JSON.parse(volume.policy));
  const mimNs = fromNs(volume.mim_ns);
  const latestNs = BigInt(status.timeNs);
  const earliest =
    oldest !== undefined && oldest.seq < volume.mim_seq
      ? { seq: oldest.seq, time: timeOf(oldest.time_ns) }
      : { seq: volume.mim_seq, time: printTime(mimNs) };
  return {
    name: volume.name,
    id: volume.id,
    sizeBytes: volume.size_bytes,
    created: timeOf(volume.created_ns),
    state: status.state,
    uri: uriOf(nbdUri, volume.name),
    latest: { seq: status.seq, time: printTime(latestNs) },
    durableSeq: status.durableSeq,
    gap: gap === null ? null : shownGap(gap),
    mim: { seq: volume.mim_seq, time: printTime(mimNs) },
    window: {
      earliest: { seq: volume.mim_seq, time: printTime(mimNs) },
      latest: { seq: status.seq, time: printTime(latestNs) },
      heldSeconds: Number((latestNs - mimNs) / 1_000_000_000n),
      wantedSeconds: policy.journalWindowSeconds,
    },
    earliestPoint: earliest,
    journal: {
      bytesUsed: status.journalBytesUsed,
      bytesMax: status.journalBytesMax,
      extents: status.headExtents,
      extentsMemoryBytes: status.headBytes,
      segments: status.segments,
      segmentsInIndexOnly: status.segmentsEvicted,
    },
    snapshots: await count('snapshot'),
    marks: await count('mark'),
    clones: await count('clone'),
    policy,
  };
}

export interface PointsQuery {
  fromNs: bigint;
  toNs: bigint;
  limit: number;
}

/** Marks, snapshots, tapes, gaps, verdicts and activity between two times; the newest `limit` of each. */
export async function pointsView(
  { catalog, bus }: ViewContext,
  volume: VolumeRow,
  { fromNs: from, toNs: to, limit }: PointsQuery,
) {
  const { db } = catalog;
  const status = await ask(bus, 'ingest.status', { volumeId: volume.id });
  const snapshots = await db
    .selectFrom('snapshot')
    .selectAll()
    .where('volume_id', '=', volume.id)
    .where('time_ns', '>=', toNs(from))
    .where('time_ns', '<=', toNs(to))
    .orderBy('time_ns', 'desc')
    .limit(limit)
    .execute();
  const bytes = await savedBytes(catalog, volume.id, snapshots);
  const marks = await db
    .selectFrom('mark')
    .leftJoin('snapshot', (join) =>
      join.onRef('snapshot.volume_id', '=', 'mark.volume_id').onRef('snapshot.seq', '=', 'mark.seq'),
    )
    .select(['mark.name', 'mark.kind', 'mark.seq', 'mark.time_ns', 'snapshot.snapshot'])
    .where('mark.volume_id', '=', volume.id)
    .where('mark.time_ns', '>=', toNs(from))
    .where('mark.time_ns', '<=', toNs(to))
    .orderBy('mark.time_ns', 'desc')
    .limit(limit)
    .execute();
  const gaps = await gapsOf(db, volume.id);
  const gapAround = (seq: number): number | null => gapAroundSeq(gaps, seq)?.number ?? null;
  const shown = gaps.filter(
    ({ fromNs: since, toNs: until }) => since <= to && (until === null || until >= from),
  );
  return {
    volume: volume.name,
    window: {
      earliest: { seq: volume.mim_seq, time: timeOf(volume.mim_ns) },
      latest: { seq: status.seq, time: printTime(BigInt(status.timeNs)) },
    },
    snapshots: snapshots.map((row) => ({
      snapshot: row.snapshot,
      seq: row.seq,
      time: timeOf(row.time_ns),
      state: row.state,
      reason: row.reason,
      bytes: bytes.get(row.snapshot) ?? 0,
      available: gapAround(row.seq) === null,
      gap: gapAround(row.seq),
    })),
    marks: marks.map((row) => ({
      name: row.name,
      kind: row.kind,
      seq: row.seq,
      time: timeOf(row.time_ns),
      available: (row.seq >= volume.mim_seq || row.snapshot !== null) && gapAround(row.seq) === null,
      gap: gapAround(row.seq),
    })),
    tapes: await tapePoints(db, volume.id, { fromNs: from, toNs: to, limit }),
    gaps: shown.slice(-limit).reverse().map(shownGap),
    verdicts: (await verdictsOf(db, volume.id, { fromNs: toNs(from), toNs: toNs(to), limit })).map(
      shownVerdict,
    ),
    restores: await restores(catalog, volume.id, from, to, limit),
    activity: await activity(catalog, bus, volume.id, from, to, limit),
  };
}

/** When the volume was put back by itself, or was to be. */
async function restores({ db }: Catalog, volumeId: string, from: bigint, to: bigint, limit: number) {
  const rows = await db
    .selectFrom('check_job')
    .select(['id', 'check_name', 'ended_ns', 'result'])
    .where('volume_id', '=', volumeId)
    .where('task', '=', 'restore')
    .where('status', '=', 'done')
    .where('ended_ns', '>=', toNs(from))
    .where('ended_ns', '<=', toNs(to))
    .orderBy('ended_ns', 'desc')
    .limit(limit)
    .execute();
  return rows.map(({ id, check_name, ended_ns, result }) => {
    const { lastGood, putBack } = JSON.parse(result!) as ToldCheckEnd;
    return { job: id, check: check_name, at: timeOf(ended_ns!), seq: lastGood!.seq, ...putBack! };
  });
}

export function shownGap({ fromNs: since, toNs: until, ...gap }: Gap) {
  const { number, fromSeq, toSeq, reason } = gap;
  const times = { fromTime: printTime(since), toTime: until === null ? null : printTime(until) };
  return { number, fromSeq, fromTime: times.fromTime, toSeq, toTime: times.toTime, reason };
}

/** What each of a row of snapshots, newest first, has saved. */
async function savedBytes(
  { db }: Catalog,
  volumeId: string,
  snapshots: readonly SnapshotRow[],
): Promise<Map<number, number>> {
  const [newest, oldest] = [snapshots[0], snapshots.at(-1)];
  if (newest === undefined || oldest === undefined) return new Map();
  const rows = await db
    .selectFrom('run')
    .select((e) => ['snapshot', e.fn.sum<number>('data_bytes').as('bytes')])
    .where('volume_id', '=', volumeId)
    .where('side', '=', 'backward')
    .where('level', '=', 0)
    .where('snapshot', '>=', oldest.snapshot)
    .where('snapshot', '<=', newest.snapshot)
    .groupBy('snapshot')
    .execute();
  return new Map(rows.map(({ snapshot, bytes }) => [snapshot, Number(bytes)]));
}

async function activity(
  catalog: Catalog,
  bus: Bus,
  volumeId: string,
  from: bigint,
  to: bigint,
  limit: number,
) {
  const stored = await catalog.db
    .selectFrom('activity')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('minute_ns', '>=', toNs(from - (from % 60_000_000_000n)))
    .where('minute_ns', '<=', toNs(to))
    .orderBy('minute_ns', 'desc')
    .limit(limit)
    .execute();
  const minutes = new Map(
    stored.map((row) => [
      fromNs(row.minute_ns),
      { writes: row.writes, bytes: row.bytes, firstSeq: row.first_seq, lastSeq: row.last_seq },
    ]),
  );
  const { minutes: newest } = await ask(bus, 'mapping-index.activity', { volumeId });
  for (const { minuteNs, writes, bytes, firstSeq, lastSeq } of newest) {
    const at = BigInt(minuteNs);
    if (at + 60_000_000_000n <= from || at > to) continue;
    const known = minutes.get(at);
    minutes.set(
      at,
      known === undefined
        ? { writes, bytes, firstSeq, lastSeq }
        : { writes: known.writes + writes, bytes: known.bytes + bytes, firstSeq: known.firstSeq, lastSeq },
    );
  }
  return [...minutes]
    .sort(([a], [b]) => (a > b ? -1 : 1))
    .slice(0, limit)
    .map(([at, minute]) => ({ time: printTime(at), seconds: 60, ...minute }));
}

/** Where guests connect to a volume or clone; null while no server for them is known. */
export function uriOf(nbdUri: ViewContext['nbdUri'], name: string): string | null {
  const server = nbdUri();
  return server === null ? null : exportUri(server, name);
}

export function timeOf(column: string): string {
  return printTime(fromNs(column));
}

export function shownVerdict(row: VerdictRow) {
  return {
    ...{ seq: row.seq, time: timeOf(row.time_ns), check: row.check_name, verdict: row.verdict },
    ...{ reason: row.reason, reusedFrom: row.reused_seq, durationMs: row.duration_ms, at: timeOf(row.at_ns) },
  };
}
