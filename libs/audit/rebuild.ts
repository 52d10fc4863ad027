// The catalogue's rows from the pool alone (I7): volumes, points of the MIMs, snapshots, marks, clones and their
// pins. What segments hold is learnt again when the appliance starts.
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type CatalogTransaction, clonePinId, insertRun, storeGaps, toNs } from '@midmirror/catalog';
import type { ExtentMap } from '@midmirror/extent-map';
import {
  type MimState,
  decodeMark,
  DescriptorKind,
  descriptorsOf,
  type ObjectHeader,
} from '@midmirror/journal';
import type { Gap } from '@midmirror/point';
import {
  type CloneFile,
  parseObjectName,
  segmentsOf,
  type PoolFiles,
  readBytes,
  readMimState,
  readObject,
  readCloneFile,
  readGaps,
  readVolumeFile,
  SegmentReader,
  type VolumeFile,
  type VolumePaths,
  volumePaths,
} from '@midmirror/pool';

export interface RebuildReport {
  volumes: { name: string; mimSeq: number; snapshots: number; marks: number; lost: string[] }[];
  clones: string[];
  /** Folders that could not be taken, and why. */
  refused: { where: string; what: string }[];
  /** Where the old catalogue is now; null: there was none. */
  previous: string | null;
}

interface FoundObject {
  header: ObjectHeader;
  extents: ExtentMap;
  lastPart: boolean;
  dataBytes: number;
}

type InTransaction = <T>(act: (tx: CatalogTransaction) => Promise<T>) => Promise<T>;

/**
 * Puts what the pool holds into an empty catalogue, one volume or clone in each `transaction`. What can't be read of
 * the pool is refused by name and the rest goes on; a fault of the catalogue ends it.
 */
export async function fillCatalog(
  files: PoolFiles,
  poolDirectory: string,
  transaction: InTransaction,
): Promise<RebuildReport> {
  const report: RebuildReport = { volumes: [], clones: [], refused: [], previous: null };
  const ids = new Set<string>();
  const names = new Map<string, string>();
  const each = async <T extends { file: { id: string; name: string } }>(
    folder: string,
    read: (directory: string) => Promise<T | null>,
    store: (tx: CatalogTransaction, found: T) => Promise<void>,
  ): Promise<void> => {
    for (const id of await files.list(`${poolDirectory}/${folder}`)) {
      const directory = `${poolDirectory}/${folder}/${id}`;
      const found = await taking(report, directory, async () => {
        const there = await read(directory);
        if (there !== null) refuseTaken(there.file, id, names);
        return there;
      });
      if (found === null) continue;
      await transaction((tx) => store(tx, found));
      names.set(found.file.name, directory);
    }
  };
  await each(
    'volumes',
    (directory) => readVolume(files, directory),
    async (tx, found) => {
      await storeVolume(tx, found);
      ids.add(found.file.id);
      report.volumes.push(told(found));
    },
  );
  await each(
    'clones',
    (directory) => readClone(files, directory, ids),
    async (tx, found) => {
      await storeClone(tx, found.file);
      report.clones.push(found.file.name);
    },
  );
  return report;
}

/** Null: it was refused, or there is nothing to take. */
async function taking<T>(
  report: RebuildReport,
  where: string,
  read: () => Promise<T | null>,
): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    report.refused.push({ where, what: messageOf(error) });
    return null;
  }
}

/** A folder that was copied within the pool has a name and an id that another one has. */
function refuseTaken(
  file: { id: string; name: string },
  folder: string,
  names: ReadonlyMap<string, string>,
): void {
  if (file.id !== folder)
    throw new MidmirrorError(
      'corrupt',
      `says that its id is ${file.id}: the folder is not where it was made`,
    );
  const other = names.get(file.name);
  if (other !== undefined)
    throw new MidmirrorError('conflict', `its name "${file.name}" is that of ${other}`);
}

interface FoundVolume {
  file: VolumeFile;
  createdNs: bigint;
  state: MimState;
  objects: FoundObject[];
  marks: FoundMark[];
  gaps: Gap[];
  /** What the sync that was writing to the MIM had saved; null: none was. */
  underWay: ObjectHeader | null;
  lost: string[];
}

async function readVolume(files: PoolFiles, directory: string): Promise<FoundVolume> {
  const paths = volumePaths(directory);
  if (!(await files.exists(paths.volumeFile)))
    throw new MidmirrorError('not-found', 'has no volume.json: its making or removal was interrupted');
  const file = await readVolumeFile(files, paths);
  const state = await readMimState(files, paths);
  if (state === null) throw new MidmirrorError('corrupt', `${paths.mimState}: both slots are damaged`);
  const lost: string[] = [];
  const objects = contiguous(await readObjects(files, paths, lost), state, lost);
  const marks = [...marksOfObjects(objects), ...(await marksOfSegments(files, paths, lost))];
  const gaps = await readGaps(files, paths);
  const underWay = state.syncId === 0 ? null : syncOf(state, objects);
  return { file, createdNs: BigInt(file.createdNs), state, objects, marks, gaps, underWay, lost };
}

async function storeVolume(tx: CatalogTransaction, found: FoundVolume): Promise<void> {
  const { file, state, objects, marks, underWay } = found;
  await insertVolume(tx, found);
  await insertObjects(tx, file.id, objects);
  await storeGaps(tx, file.id, found.gaps);
  for (const mark of marks) {
    const row = {
      volume_id: file.id,
      name: mark.name,
      kind: mark.kind,
      seq: mark.seq,
      time_ns: toNs(mark.timeNs),
    };
    await tx
      .insertInto('mark')
      .values(row)
      .onConflict((c) => c.columns(['volume_id', 'name']).doNothing())
      .execute();
  }
  if (underWay !== null) await insertSync(tx, file.id, state, underWay);
}

function told({ file, state, objects, marks, lost }: FoundVolume): RebuildReport['volumes'][number] {
  return {
    name: file.name,
    mimSeq: state.mimSeq,
    snapshots: new Set(objects.map(({ header }) => header.snapshot)).size,
    marks: new Set(marks.map((mark) => mark.name)).size,
    lost,
  };
}

async function insertVolume(tx: CatalogTransaction, { file, createdNs, state }: FoundVolume): Promise<void> {
  const { id, name, sizeBytes, policy } = file;
  await tx
    .insertInto('volume')
    .values({
      id,
      name,
      size_bytes: sizeBytes,
      policy: JSON.stringify(policy),
      state: 'active',
      created_ns: toNs(createdNs),
      mim_seq: state.mimSeq,
      mim_ns: toNs(state.mimNs),
    })
    .execute();
}

async function readObjects(files: PoolFiles, paths: VolumePaths, lost: string[]): Promise<FoundObject[]> {
  const objects: FoundObject[] = [];
  for (const name of await files.list(paths.backward)) {
    if (parseObjectName(name) === null) continue;
    const file = await files.open(`${paths.backward}/${name}`, 'read');
    try {
      const found = await readObject(file);
      let dataBytes = 0;
      for (const c = found.extents.cursor(); c.valid; c.next()) if (c.offset > 0) dataBytes += c.length;
      objects.push({ ...found, dataBytes });
    } catch (error) {
      lost.push(messageOf(error));
    } finally {
      await file.close();
    }
  }
  return objects;
}

/**
 * The objects that lead without a gap from the MIM back into the past. A snapshot needs every object after it, so
 * what lies before a gap can't be read any more. Objects of a sync that never reached the MIM don't count.
 */
function contiguous(objects: FoundObject[], state: MimState, lost: string[]): FoundObject[] {
  const applied = objects.filter(
    ({ header }) => header.toSeq <= state.mimSeq || (state.syncId !== 0 && header.toSeq === state.targetSeq),
  );
  const spans = new Map<string, FoundObject[]>();
  for (const object of applied) {
    const key = `${object.header.snapshot}/${object.header.fromSeq}/${object.header.toSeq}`;
    spans.set(key, [...(spans.get(key) ?? []), object]);
  }
  const whole = [...spans.values()].filter((parts) => {
    parts.sort((a, b) => a.header.part - b.header.part);
    return parts.every((part, i) => part.header.part === i) && parts.at(-1)!.lastPart;
  });
  const kept: FoundObject[] = [];
  let reach = state.syncId === 0 ? state.mimSeq : state.targetSeq;
  // Newest first; of one span that two snapshots have, a merge was interrupted: both say the same.
  whole.sort(
    (a, b) => b[0]!.header.toSeq - a[0]!.header.toSeq || a[0]!.header.fromSeq - b[0]!.header.fromSeq,
  );
  for (const parts of whole) {
    const { fromSeq, toSeq, snapshot } = parts[0]!.header;
    if (toSeq < reach) {
      lost.push(
        `snapshots before write ${reach}: an object for writes ${toSeq + 1} to ${reach} is missing (snapshot ${snapshot} and older)`,
      );
      break;
    }
    kept.push(...parts);
    reach = Math.min(reach, fromSeq);
  }
  return begun(kept);
}

/** Snapshots whose first object is there; a removal takes that one first. Objects of others serve no point. */
function begun(objects: FoundObject[]): FoundObject[] {
  const starts = new Set(
    objects
      .filter(({ header }) => header.fromSeq === header.snapshotSeq)
      .map(({ header }) => header.snapshot),
  );
  return objects.filter(({ header }) => starts.has(header.snapshot));
}

async function insertObjects(
  tx: CatalogTransaction,
  volumeId: string,
  objects: FoundObject[],
): Promise<void> {
  const newest = Math.max(0, ...objects.map(({ header }) => header.snapshot));
  const snapshots = new Map<number, ObjectHeader>();
  for (const { header } of objects)
    if (!snapshots.has(header.snapshot)) snapshots.set(header.snapshot, header);
  for (const header of snapshots.values()) {
    await tx
      .insertInto('snapshot')
      .values({
        volume_id: volumeId,
        snapshot: header.snapshot,
        seq: header.snapshotSeq,
        time_ns: toNs(header.snapshotNs),
        until_ns: header.snapshotUntilNs === 0n ? null : toNs(header.snapshotUntilNs),
        state: header.snapshot === newest ? 'open' : 'closed',
        opened_ns: toNs(header.snapshotNs),
        reason: labelOf(header).reason,
      })
      .execute();
  }
  for (const { header, extents, dataBytes } of objects) {
    const span = { from_seq: header.fromSeq, to_seq: header.toSeq };
    const run = {
      volume_id: volumeId,
      side: 'backward',
      source: header.object,
      snapshot: header.snapshot,
      ...span,
      extents: extents.size,
      data_bytes: dataBytes,
    };
    await insertRun(tx, run, extents);
  }
}

function syncOf(state: MimState, objects: FoundObject[]): ObjectHeader {
  const object = objects.find(
    ({ header }) => header.syncId === state.syncId && header.toSeq === state.targetSeq,
  );
  if (object !== undefined) return object.header;
  throw new MidmirrorError(
    'corrupt',
    `sync ${state.syncId} was writing to the MIM and what it had saved is missing`,
  );
}

/** A sync was writing to the MIM: it is repeated from the journal when the appliance starts. */
async function insertSync(
  tx: CatalogTransaction,
  volumeId: string,
  state: MimState,
  saved: ObjectHeader,
): Promise<void> {
  const times = {
    from_ns: toNs(state.mimNs),
    to_ns: toNs(state.mimNs),
    started_ns: toNs(state.mimNs),
    finished_ns: null,
  };
  await tx
    .insertInto('sync')
    .values({
      volume_id: volumeId,
      sync_id: state.syncId,
      snapshot: saved.snapshot,
      from_seq: state.mimSeq,
      to_seq: state.targetSeq,
      state: 'prepared',
      cause: 'found by rebuild',
      extents: 0,
      bytes: 0,
      ...times,
    })
    .execute();
}

interface FoundMark {
  name: string;
  kind: string;
  seq: number;
  timeNs: bigint;
}

function labelOf(header: ObjectHeader): { reason: string; marks: { name: string; kind: string }[] } {
  return JSON.parse(header.label) as { reason: string; marks: { name: string; kind: string }[] };
}

function marksOfObjects(objects: FoundObject[]): FoundMark[] {
  return objects.flatMap(({ header }) =>
    labelOf(header).marks.map((mark) => ({ ...mark, seq: header.snapshotSeq, timeNs: header.snapshotNs })),
  );
}

async function marksOfSegments(files: PoolFiles, paths: VolumePaths, lost: string[]): Promise<FoundMark[]> {
  const marks: FoundMark[] = [];
  for (const { name, segment } of segmentsOf(await files.list(paths.forward))) {
    const file = await files.open(`${paths.forward}/${name}`, 'read');
    try {
      const reader = await SegmentReader.open(file);
      if (reader.header.segment !== segment) continue;
      for await (const { batch, bytes } of reader.batches(0, Number.MAX_SAFE_INTEGER)) {
        for (const d of descriptorsOf(bytes, 0, batch)) {
          if (d.kind !== DescriptorKind.mark) continue;
          const record = decodeMark(await readBytes(file, d.dataOffset, d.length));
          if ('name' in record) marks.push({ ...record, seq: d.seq, timeNs: batch.timeNs });
        }
      }
    } catch (error) {
      lost.push(`marks of ${name}: ${messageOf(error)}`);
    } finally {
      await file.close();
    }
  }
  return marks;
}

/** Null: its making was interrupted. */
async function readClone(
  files: PoolFiles,
  directory: string,
  volumes: ReadonlySet<string>,
): Promise<{ file: CloneFile } | null> {
  if (!(await files.exists(`${directory}/clone.json`))) return null;
  const file = await readCloneFile(files, directory);
  if (!volumes.has(file.volumeId))
    throw new MidmirrorError('not-found', `its volume ${file.volumeId} is not in the pool`);
  for (const time of [file.timeNs, file.createdNs])
    if (!/^\d+$/.test(time)) throw new MidmirrorError('corrupt', `clone.json: "${time}" is not a time`);
  return { file };
}

async function storeClone(tx: CatalogTransaction, clone: CloneFile): Promise<void> {
  const { id, name, volumeId, seq } = clone;
  await tx
    .insertInto('clone')
    .values({
      id,
      name,
      volume_id: volumeId,
      seq,
      time_ns: toNs(BigInt(clone.timeNs)),
      created_ns: toNs(BigInt(clone.createdNs)),
    })
    .execute();
  await tx
    .insertInto('pin')
    .values({
      id: clonePinId(id),
      volume_id: volumeId,
      seq,
      holder: 'clone',
      since_ns: toNs(BigInt(clone.createdNs)),
    })
    .execute();
}
