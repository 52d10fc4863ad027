// Retention: which snapshots go by the policy, and how one goes: its run is merged into its older neighbour's,
// the data that the neighbour needs is written to new objects, the rest is given back.
import { ask, tell } from '@midmirror/bus';
import {
  type CatalogReader,
  type CatalogTransaction,
  deleteRun,
  fromNs,
  holderOf,
  loadRun,
  runsOfSnapshot,
  type SnapshotRow,
  snapshotByNumber,
  snapshotsBelow,
  type StoredRun,
  volumeById,
} from '@midmirror/catalog';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { keptSnapshots, parsePolicy, type VolumePolicy } from '@midmirror/policy';
import { MidmirrorError } from '@midmirror/basis';
import { PieceReader } from '@midmirror/pool';
import { insertSaved, objectHeader, savedFor, type SavedObject, type Span, writeObjects } from './objects.ts';
import type { VolumeSync, VolumeSyncContext } from './volume-sync.ts';

const SOURCE = '/midmirror/synchronizer';

export interface Drop {
  snapshot: number;
  seq: number;
  timeNs: string;
  bytes: number;
}

/** The snapshots that the policy lets go of, oldest first. */
export async function droppable(db: CatalogReader, volumeId: string): Promise<Drop[]> {
  const volume = await volumeById(db, volumeId);
  const policy = parsePolicy(JSON.parse(volume.policy));
  const rows = await db
    .selectFrom('snapshot')
    .select(['snapshot', 'seq', 'time_ns', 'state'])
    .where('volume_id', '=', volumeId)
    .orderBy('seq')
    .execute();
  const held = await heldSeqs(db, volumeId, policy);
  const candidates = rows.map((row) => ({
    snapshot: row.snapshot,
    timeNs: fromNs(row.time_ns),
    held: row.state === 'open' || held.has(row.seq),
  }));
  const kept = keptSnapshots(candidates, policy);
  const drops: Drop[] = [];
  for (const { snapshot, seq, time_ns } of rows) {
    if (kept.has(snapshot)) continue;
    const runs = await runsOfSnapshot(db, volumeId, snapshot);
    const bytes = runs.reduce((sum, run) => sum + run.data_bytes, 0);
    drops.push({ snapshot, seq, timeNs: fromNs(time_ns).toString(), bytes });
  }
  return drops;
}

/** Points that stay whatever the policy says of their age: pinned ones, and marks of the kinds it keeps. */
async function heldSeqs(db: CatalogReader, volumeId: string, policy: VolumePolicy): Promise<Set<number>> {
  const pins = await db.selectFrom('pin').select('seq').where('volume_id', '=', volumeId).execute();
  const held = new Set(pins.map((pin) => pin.seq));
  if (policy.keepMarks.length === 0) return held;
  const marks = await db
    .selectFrom('mark')
    .select('seq')
    .where('volume_id', '=', volumeId)
    .where('kind', 'in', policy.keepMarks)
    .execute();
  for (const mark of marks) held.add(mark.seq);
  return held;
}

/**
 * What decides which snapshots the policy lets go of, but for what only ever keeps more (new marks, snapshots that have
 * gone). Once all of them have been dropped there is nothing to do until this changes; time alone changes nothing.
 */
export async function retentionBasis(db: CatalogReader, volumeId: string): Promise<string> {
  const { policy } = await volumeById(db, volumeId);
  const newest = await db
    .selectFrom('snapshot')
    .select((e) => e.fn.max('snapshot').as('snapshot'))
    .where('volume_id', '=', volumeId)
    .executeTakeFirst();
  const pins = await db
    .selectFrom('pin')
    .select('seq')
    .where('volume_id', '=', volumeId)
    .orderBy('seq')
    .execute();
  return JSON.stringify([policy, newest?.snapshot, pins.map((pin) => pin.seq)]);
}

/** Drops one closed snapshot. Refuses with `conflict` when it is open or pinned. The bytes given back. */
export async function dropSnapshot(
  sync: VolumeSync,
  number: number,
  context: VolumeSyncContext,
): Promise<number> {
  const { catalog, bus, clock, files } = context;
  const row = await snapshotByNumber(catalog.db, sync.id, number);
  if (row === undefined) throw new MidmirrorError('not-found', `there is no snapshot ${number}`);
  if (row.state === 'open')
    throw new MidmirrorError('conflict', `snapshot ${number} is open: syncs still add to it`, {
      hint: 'close it by a sync first',
    });
  const [neighbour] = await snapshotsBelow(catalog.db, sync.id, number, 1);
  const runs = await runsOfSnapshot(catalog.db, sync.id, number);
  const pieces = new PieceReader(files, sync.paths);
  const span = { fromSeq: runs[0]?.from_seq ?? row.seq, toSeq: runs.at(-1)?.to_seq ?? row.seq };
  let written: SavedObject[] = [];
  try {
    if (neighbour !== undefined) written = await mergeInto(sync, neighbour, runs, span, pieces, context);
  } finally {
    await pieces.close();
  }
  const keptBytes = written.reduce((sum, object) => sum + object.dataBytes, 0);
  const freedBytes = runs.reduce((sum, run) => sum + run.data_bytes, 0) - keptBytes;
  await catalog.transaction(async (tx) => {
    await refusePinned(tx, row);
    if (neighbour !== undefined) await insertSaved(tx, sync.id, neighbour.snapshot, span, written);
    for (const run of runs) await deleteRun(tx, sync.id, 'backward', run.source);
    await tx.deleteFrom('snapshot').where('volume_id', '=', sync.id).where('snapshot', '=', number).execute();
    await tell(bus, tx, SOURCE, {
      type: 'snapshot.dropped',
      volumeId: sync.id,
      timeNs: clock.nowNs().toString(),
      data: { snapshot: number, freedBytes },
    });
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
  runs: StoredRun[],
  span: Span,
  pieces: PieceReader,
  context: VolumeSyncContext,
): Promise<SavedObject[]> {
  const { catalog } = context;
  const dropped = new ExtentMap();
  for (const run of runs) await loadRun(catalog.db, run, dropped, true);
  const own = await savedFor(catalog.db, sync.id, neighbour.snapshot);
  for (const c = own.cursor(); c.valid; c.next()) dropped.erase(c.start, c.length);
  const untilNs = fromNs(neighbour.until_ns ?? neighbour.time_ns);
  const header = await objectHeader(catalog.db, neighbour, untilNs, 0, span);
  return await writeObjects(sync.place, header, async (writer) => {
    for (const c = dropped.cursor(); c.valid; c.next()) {
      const object = await writer();
      const { start, length, flags, source, offset, crc } = c;
      if (flags & ExtentFlag.zero) object.zero(start, length);
      else {
        const bytes = new Uint8Array(length);
        await pieces.read({ flags, source, offset, length, crc }, 0, length, bytes, 0);
        await object.data(start, bytes);
      }
    }
  });
}

async function refusePinned(tx: CatalogTransaction, row: SnapshotRow): Promise<void> {
  const holder = await holderOf(tx, row.volume_id, row.seq);
  if (holder === undefined) return;
  throw new MidmirrorError('conflict', `snapshot ${row.snapshot} is pinned by a ${holder}`, {
    hint: 'close the mirror or delete the clone first',
  });
}
