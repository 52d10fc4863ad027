// Retention: which snapshots go by the policy, and how one goes: its run is merged into its older neighbour's,
// the data that the neighbour needs is written to new objects, the rest is given back.
import { type Bus, ask } from '@midmirror/bus';
import {
  type CatalogTransaction,
  deleteRun,
  fromNs,
  insertRun,
  loadRun,
  runsOf,
  type SnapshotRow,
  volumeById,
} from '@midmirror/catalog';
import { envelopeOf, Streams, timelineSubject } from '@midmirror/events';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { keptSnapshots, parsePolicy } from '@midmirror/policy';
import { MidmirrorError } from '@midmirror/basis';
import { ObjectWriter, PieceReader } from '@midmirror/pool';
import type { SavedObject } from './move-data.ts';
import { snapshotLabel } from './snapshot-label.ts';
import type { VolumeSync, VolumeSyncContext } from './volume-sync.ts';

const OBJECT_BYTES_MAX = 1 << 30;

export interface Drop {
  snapshot: number;
  seq: number;
  timeNs: string;
  bytes: number;
}

/** The snapshots that the policy lets go of, oldest first. */
export async function droppable(volumeId: string, context: VolumeSyncContext): Promise<Drop[]> {
  const { db } = context.catalog;
  const volume = await volumeById(db, volumeId);
  const policy = parsePolicy(JSON.parse(volume.policy));
  const rows = await db
    .selectFrom('snapshot')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .orderBy('seq')
    .execute();
  const pins = new Set(
    (await db.selectFrom('pin').select('seq').where('volume_id', '=', volumeId).execute()).map(
      (pin) => pin.seq,
    ),
  );
  const marks = await db
    .selectFrom('mark')
    .select(['seq', 'kind'])
    .where('volume_id', '=', volumeId)
    .execute();
  const marked = new Set(
    marks.filter((mark) => (policy.keepMarks as string[]).includes(mark.kind)).map((mark) => mark.seq),
  );
  const candidates = rows.map((row) => ({
    snapshot: row.snapshot,
    timeNs: fromNs(row.time_ns),
    held: row.state === 'open' || pins.has(row.seq) || marked.has(row.seq),
  }));
  const kept = keptSnapshots(candidates, policy);
  const runs = await runsOf(db, volumeId, 'backward');
  return rows
    .filter((row) => !kept.has(row.snapshot))
    .map((row) => ({
      snapshot: row.snapshot,
      seq: row.seq,
      timeNs: fromNs(row.time_ns).toString(),
      bytes: runs
        .filter((run) => run.snapshot === row.snapshot)
        .reduce((sum, run) => sum + run.data_bytes, 0),
    }));
}

/** Drops one closed snapshot. Refuses with `conflict` when it is open or pinned. The bytes given back. */
export async function dropSnapshot(
  sync: VolumeSync,
  number: number,
  context: VolumeSyncContext,
): Promise<number> {
  const { catalog, bus, files } = context;
  const rows = await catalog.db
    .selectFrom('snapshot')
    .selectAll()
    .where('volume_id', '=', sync.id)
    .orderBy('seq')
    .execute();
  const index = rows.findIndex((row) => row.snapshot === number);
  const row = rows[index];
  if (row === undefined) throw new MidmirrorError('not-found', `there is no snapshot ${number}`);
  if (row.state === 'open')
    throw new MidmirrorError('conflict', `snapshot ${number} is open: syncs still add to it`, {
      hint: 'close it by a sync first',
    });
  const neighbour = rows[index - 1];
  const runs = (await runsOf(catalog.db, sync.id, 'backward')).filter((run) => run.snapshot === number);
  const pieces = new PieceReader(files, sync.paths);
  let written: SavedObject[] = [];
  try {
    if (neighbour !== undefined) written = await mergeInto(sync, neighbour, runs, pieces, context);
  } finally {
    await pieces.close();
  }
  const keptBytes = written.reduce((sum, object) => sum + object.dataBytes, 0);
  const freedBytes = runs.reduce((sum, run) => sum + run.data_bytes, 0) - keptBytes;
  await catalog.transaction(async (tx) => {
    await refusePinned(tx, row);
    for (const { object, extents, dataBytes } of written) {
      const span = { from_seq: runs[0]!.from_seq, to_seq: runs.at(-1)!.to_seq };
      const run = {
        volume_id: sync.id,
        side: 'backward',
        source: object,
        snapshot: neighbour!.snapshot,
        ...span,
        extents: extents.size,
        data_bytes: dataBytes,
      };
      await insertRun(tx, run, extents);
    }
    for (const run of runs) await deleteRun(tx, sync.id, 'backward', run.source);
    await tx.deleteFrom('snapshot').where('volume_id', '=', sync.id).where('snapshot', '=', number).execute();
    await tell(tx, bus, sync.id, number, freedBytes, context);
  });
  // Open mirrors of older snapshots read the old objects until they have switched.
  await ask(bus, 'mapping-index.advance', { volumeId: sync.id });
  // The oldest first: a rebuild from the pool sees by its absence that the snapshot was being removed.
  for (const run of runs) await sync.removeObject(run.source);
  return freedBytes;
}

/** Writes what the older neighbour lacks of these runs into objects of the neighbour's; one also when it lacks
 *  nothing, so that the chain of objects has no gap. */
async function mergeInto(
  sync: VolumeSync,
  neighbour: SnapshotRow,
  runs: { id: number; from_seq: number; to_seq: number }[],
  pieces: PieceReader,
  context: VolumeSyncContext,
): Promise<SavedObject[]> {
  const { catalog, files } = context;
  const dropped = new ExtentMap();
  for (const run of runs) await loadRun(catalog.db, run.id, dropped, true);
  for (const run of await runsOf(catalog.db, sync.id, 'backward')) {
    if (run.snapshot !== neighbour.snapshot) continue;
    const own = new ExtentMap();
    await loadRun(catalog.db, run.id, own, true);
    for (const c = own.cursor(); c.valid; c.next()) dropped.erase(c.start, c.length);
  }
  const saved: SavedObject[] = [];
  const label = await snapshotLabel(catalog.db, neighbour);
  const create = (): Promise<ObjectWriter> =>
    ObjectWriter.create(files, sync.paths.backward, {
      volumeId: sync.id,
      object: sync.takeObject(),
      epoch: 1,
      syncId: 0,
      snapshot: neighbour.snapshot,
      snapshotSeq: neighbour.seq,
      snapshotNs: fromNs(neighbour.time_ns),
      snapshotUntilNs: fromNs(neighbour.until_ns ?? neighbour.time_ns),
      fromSeq: runs[0]!.from_seq,
      toSeq: runs.at(-1)!.to_seq,
      part: saved.length,
      label,
    });
  let writer = await create();
  const finish = async (lastPart: boolean): Promise<void> => {
    await writer.finish(lastPart);
    saved.push({ object: writer.header.object, extents: writer.extents, dataBytes: writer.dataBytes });
  };
  for (const c = dropped.cursor(); c.valid; c.next()) {
    if (writer.dataBytes >= OBJECT_BYTES_MAX) {
      await finish(false);
      writer = await create();
    }
    const { start, length, flags, source, offset, crc } = c;
    if (flags & ExtentFlag.zero) writer.zero(start, length);
    else {
      const bytes = new Uint8Array(length);
      await pieces.read({ flags, source, offset, length, crc }, 0, length, bytes, 0);
      await writer.data(start, bytes);
    }
  }
  await finish(true);
  return saved;
}

async function refusePinned(tx: CatalogTransaction, row: SnapshotRow): Promise<void> {
  const pin = await tx
    .selectFrom('pin')
    .select('holder')
    .where('volume_id', '=', row.volume_id)
    .where('seq', '=', row.seq)
    .executeTakeFirst();
  if (pin === undefined) return;
  throw new MidmirrorError('conflict', `snapshot ${row.snapshot} is pinned by a ${pin.holder}`, {
    hint: 'close the mirror or delete the clone first',
  });
}

async function tell(
  tx: CatalogTransaction,
  bus: Bus,
  volumeId: string,
  snapshot: number,
  freedBytes: number,
  context: VolumeSyncContext,
): Promise<void> {
  const type = 'snapshot.dropped';
  const event = envelopeOf(
    { type, volumeId, timeNs: context.clock.nowNs().toString(), data: { snapshot, freedBytes } },
    '/midmirror/synchronizer',
  );
  await bus.publishIn(tx, Streams.timeline, timelineSubject(volumeId, type), event);
}
