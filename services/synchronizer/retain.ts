// Retention: which snapshots go by the policy, and how one goes: its run is merged into its older neighbour's,
// the data that the neighbour needs is written to new objects, the rest is given back.
import { tell } from '@midmirror/bus';
import {
  type CatalogReader,
  deleteRun,
  fromNs,
  holderOf,
  loadRun,
  newestSnapshotOf,
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
import { PIECE_BYTES_MAX } from '@midmirror/journal';
import { PieceReader } from '@midmirror/pool';
import { insertSaved, objectHeader, savedFor, type SavedObject, type Span, writeObjects } from './objects.ts';
import type { VolumeSync, VolumeSyncContext } from './volume-sync.ts';

const SOURCE = '/midmirror/synchronizer';
/** What an object takes beside its data: header, list and trailer, in blocks of the file system. */
const OBJECT_BYTES_OVER = 8192;

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
    const bytes = bytesOf(await runsOfSnapshot(db, volumeId, snapshot));
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
  const newest = await newestSnapshotOf(db, volumeId);
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
  const { catalog, bus, clock } = context;
  await sync.objects.begin();
  const row = await snapshotByNumber(catalog.db, sync.id, number);
  if (row === undefined) throw new MidmirrorError('not-found', `there is no snapshot ${number}`);
  if (row.state === 'open')
    throw new MidmirrorError('conflict', `snapshot ${number} is open: syncs still add to it`, {
      hint: 'close it by a sync first',
    });
  await refusePinned(catalog.db, row);
  const [neighbour] = await snapshotsBelow(catalog.db, sync.id, number, 1);
  const runs = await runsOfSnapshot(catalog.db, sync.id, number);
  const merge = neighbour === undefined ? null : await planMerge(sync, neighbour, row, runs, context);
  const written = merge === null ? [] : await writeMerge(sync, merge, context);
  // The oldest first: a rebuild from the pool sees by its absence that the snapshot was being removed.
  const gone = [...runs, ...(merge?.folded ?? [])];
  const keptBytes = written.reduce((sum, object) => sum + object.dataBytes, 0);
  const freedBytes = bytesOf(gone) - keptBytes;
  const dropping = catalog.transaction(async (tx) => {
    await refusePinned(tx, row);
    if (merge !== null) await insertSaved(tx, sync.id, merge.into.snapshot, merge.span, written);
    for (const run of gone) await deleteRun(tx, sync.id, 'backward', run.source);
    await sync.objects.noteGiven(tx);
    await tx.deleteFrom('snapshot').where('volume_id', '=', sync.id).where('snapshot', '=', number).execute();
    await tell(bus, tx, SOURCE, {
      type: 'snapshot.dropped',
      volumeId: sync.id,
      timeNs: clock.nowNs().toString(),
      data: { snapshot: number, freedBytes },
    });
  });
  await dropping.catch(async (error: unknown) => {
    // Pinned while the objects were written. After any other error they may be in use: the next start knows.
    if (error instanceof MidmirrorError && error.code === 'conflict')
      for (const { object } of written) await sync.objects.remove(object);
    throw error;
  });
  // Open mirrors of older snapshots read the old objects until they have switched. Those that do not answer find them
  // gone, and then where the bytes are now.
  await sync.askReaders('mapping-index.advance');
  for (const run of gone) await sync.objects.remove(run.source);
  return freedBytes;
}

/** What an object of the older neighbour's will hold. */
interface Merge {
  into: SnapshotRow;
  extents: ExtentMap;
  /** Runs of the neighbour's own that go into it too. */
  folded: StoredRun[];
  span: Span;
}

/** What the older neighbour lacks of a snapshot's runs, and of its own what is worth writing again with it. */
async function planMerge(
  sync: VolumeSync,
  into: SnapshotRow,
  dropped: SnapshotRow,
  runs: readonly StoredRun[],
  context: VolumeSyncContext,
): Promise<Merge> {
  const { db } = context.catalog;
  const extents = new ExtentMap();
  for (const run of runs) await loadRun(db, run, extents, true);
  const own = await savedFor(db, sync.id, into.snapshot);
  for (const c = own.cursor(); c.valid; c.next()) extents.erase(c.start, c.length);
  let bytes = 0;
  for (const c = extents.cursor(); c.valid; c.next())
    if ((c.flags & ExtentFlag.zero) === 0) bytes += c.length;
  const folded = foldedWith(bytes, await runsOfSnapshot(db, sync.id, into.snapshot));
  for (const run of folded) await loadRun(db, run, extents, true);
  const fromSeq = folded[0]?.from_seq ?? runs[0]?.from_seq ?? dropped.seq;
  return { into, extents, folded, span: { fromSeq, toSeq: runs.at(-1)?.to_seq ?? dropped.seq } };
}

/**
 * The newest of a snapshot's own runs, the oldest first, that are not much larger than what comes after them. So a
 * snapshot into which thousands are dropped has few objects, and each byte is written again a few times only.
 */
function foldedWith(bytes: number, own: readonly StoredRun[]): StoredRun[] {
  let after = bytes + OBJECT_BYTES_OVER;
  let at = own.length;
  while (at > 0) {
    // All parts of one sync, or none.
    const { from_seq, to_seq } = own[at - 1]!;
    let first = at - 1;
    while (first > 0 && own[first - 1]!.from_seq === from_seq && own[first - 1]!.to_seq === to_seq)
      first -= 1;
    const size = bytesOf(own.slice(first, at));
    if (size > 2 * after) break;
    after += size;
    at = first;
  }
  return own.slice(at);
}

function bytesOf(runs: readonly StoredRun[]): number {
  return runs.reduce((sum, run) => sum + run.data_bytes, 0);
}

/** One object at least, also of nothing, so that the chain of objects has no gap. */
async function writeMerge(
  sync: VolumeSync,
  merge: Merge,
  context: VolumeSyncContext,
): Promise<SavedObject[]> {
  const { into, extents, span } = merge;
  const untilNs = fromNs(into.until_ns ?? into.time_ns);
  const header = await objectHeader(context.catalog.db, into, untilNs, 0, span);
  const pieces = new PieceReader(context.files, sync.paths);
  const piece = new Uint8Array(PIECE_BYTES_MAX);
  try {
    return await writeObjects(sync.objects, header, async (writer) => {
      for (const c = extents.cursor(); c.valid; c.next()) {
        const object = await writer();
        const { start, length, flags, source, offset, crc } = c;
        if (flags & ExtentFlag.zero) object.zero(start, length);
        else {
          await pieces.read({ flags, source, offset, length, crc }, 0, length, piece, 0);
          await object.data(start, piece.subarray(0, length));
        }
      }
    });
  } finally {
    await pieces.close();
  }
}

async function refusePinned(tx: CatalogReader, row: SnapshotRow): Promise<void> {
  const holder = await holderOf(tx, row.volume_id, row.seq);
  if (holder === undefined) return;
  throw new MidmirrorError('conflict', `snapshot ${row.snapshot} is pinned by a ${holder}`, {
    hint:
      holder === 'tape'
        ? 'the next difference tape is one to it, or a tape is being written; the policy field tapeHoldBaseSeconds bounds that'
        : holder === 'restore'
          ? 'a volume is being put back to it: `mim check jobs` shows it'
          : 'close the mirror or delete the clone first',
  });
}
