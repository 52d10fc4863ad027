// Backward objects of a snapshot, and the runs that name them: what a sync saves, what a drop merges, and the
// empty one that makes a snapshot known to the pool.
import {
  type CatalogReader,
  type CatalogTransaction,
  fromNs,
  insertRun,
  loadRun,
  runsOfSnapshot,
  type SnapshotRow,
} from '@midmirror/catalog';
import { ExtentMap } from '@midmirror/extent-map';
import type { ObjectHeader } from '@midmirror/journal';
import { ObjectWriter, objectName, type PoolFiles } from '@midmirror/pool';
import { snapshotLabel } from './snapshot-label.ts';

const OBJECT_BYTES_MAX = 1 << 30;

export interface SavedObject {
  object: number;
  extents: ExtentMap;
  dataBytes: number;
}

/** The writes that an object's data goes back over: `(fromSeq, toSeq]`. */
export interface Span {
  fromSeq: number;
  toSeq: number;
}

/** What is the same in all parts that one step writes for a snapshot. */
export async function objectHeader(
  db: CatalogReader,
  snapshot: Pick<SnapshotRow, 'volume_id' | 'snapshot' | 'seq' | 'time_ns' | 'reason'>,
  untilNs: bigint,
  syncId: number,
  span: Span,
): Promise<Omit<ObjectHeader, 'object' | 'part'>> {
  return {
    volumeId: snapshot.volume_id,
    epoch: 1,
    syncId,
    snapshot: snapshot.snapshot,
    snapshotSeq: snapshot.seq,
    snapshotNs: fromNs(snapshot.time_ns),
    snapshotUntilNs: untilNs,
    ...span,
    label: await snapshotLabel(db, snapshot),
  };
}

/**
 * Writes one or more objects, durable when it resolves. `fill` asks for the writer before each piece: a full object
 * is ended and the next part begun. After an error none of them is left.
 */
export async function writeObjects(
  place: { files: PoolFiles; directory: string; takeObject: () => number },
  header: Omit<ObjectHeader, 'object' | 'part'>,
  fill: (writer: () => Promise<ObjectWriter>) => Promise<void>,
): Promise<SavedObject[]> {
  const { files, directory, takeObject } = place;
  const saved: SavedObject[] = [];
  const begin = (): Promise<ObjectWriter> =>
    ObjectWriter.create(files, directory, { ...header, object: takeObject(), part: saved.length });
  let writer = await begin();
  const finish = async (lastPart: boolean): Promise<void> => {
    await writer.finish(lastPart);
    saved.push({ object: writer.header.object, extents: writer.extents, dataBytes: writer.dataBytes });
  };
  try {
    await fill(async () => {
      if (writer.dataBytes >= OBJECT_BYTES_MAX) {
        await finish(false);
        writer = await begin();
      }
      return writer;
    });
    await finish(true);
    return saved;
  } catch (error) {
    await writer.abandon();
    for (const { object } of saved) await files.unlink(`${directory}/${objectName(object)}`);
    throw error;
  }
}

/** What a snapshot has saved already. */
export async function savedFor(db: CatalogReader, volumeId: string, snapshot: number): Promise<ExtentMap> {
  const saved = new ExtentMap();
  for (const run of await runsOfSnapshot(db, volumeId, snapshot)) await loadRun(db, run, saved, true);
  return saved;
}

/** The catalogue hears of objects: a run for each. */
export async function insertSaved(
  tx: CatalogTransaction,
  volumeId: string,
  snapshot: number,
  span: Span,
  objects: readonly SavedObject[],
): Promise<void> {
  for (const { object, extents, dataBytes } of objects) {
    const run = {
      volume_id: volumeId,
      side: 'backward',
      source: object,
      snapshot,
      from_seq: span.fromSeq,
      to_seq: span.toSeq,
      extents: extents.size,
      data_bytes: dataBytes,
    };
    await insertRun(tx, run, extents);
  }
}
