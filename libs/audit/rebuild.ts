// The catalogue from the pool alone (I7): volumes, points of the MIMs, snapshots, marks, clones and their pins.
// What segments hold is learnt again when the appliance starts. Written beside the old catalogue and put in its
// place only when it is whole; the old one is kept.
import { MidmirrorError, messageOf } from '@midmirror/basis';
import {
  type CatalogTransaction,
  clonePinId,
  insertRun,
  openEmbeddedCatalog,
  toNs,
} from '@midmirror/catalog';
import type { ExtentMap } from '@midmirror/extent-map';
import {
  type MimState,
  decodeMark,
  DescriptorKind,
  descriptorsOf,
  type ObjectHeader,
} from '@midmirror/journal';
import {
  parseObjectName,
  segmentsOf,
  type PoolFiles,
  readBytes,
  readMimState,
  readObject,
  readCloneFile,
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

/** The data directory is locked by the caller. `stamp` names the old catalogue's copy. */
export async function rebuildCatalog(
  files: PoolFiles,
  dataDirectory: string,
  stamp: string,
): Promise<RebuildReport> {
  const poolDirectory = `${dataDirectory}/pool`;
  const path = `${dataDirectory}/catalog.db`;
  const fresh = `${path}.rebuild`;
  for (const name of [fresh, `${fresh}-wal`, `${fresh}-shm`])
    if (await files.exists(name)) await files.unlink(name);
  const report: RebuildReport = { volumes: [], clones: [], refused: [], previous: null };
  const catalog = await openEmbeddedCatalog(fresh);
  try {
    const found = new Set<string>();
    for (const id of await files.list(`${poolDirectory}/volumes`)) {
      await taking(report, `${poolDirectory}/volumes/${id}`, async () => {
        const volume = await rebuildVolume(files, `${poolDirectory}/volumes/${id}`, (act) =>
          catalog.transaction(act),
        );
        report.volumes.push(volume);
        found.add(id);
      });
    }
    for (const id of await files.list(`${poolDirectory}/clones`)) {
      await taking(report, `${poolDirectory}/clones/${id}`, async () => {
        const name = await rebuildClone(files, `${poolDirectory}/clones/${id}`, found, (act) =>
          catalog.transaction(act),
        );
        if (name !== null) report.clones.push(name);
      });
    }
  } finally {
    await catalog.close();
  }
  if (await files.exists(path)) {
    report.previous = `${path}.before-${stamp}`;
    for (const suffix of ['-wal', '-shm', ''])
      if (await files.exists(path + suffix)) await files.rename(path + suffix, report.previous + suffix);
  }
  await files.rename(fresh, path);
  await files.syncDirectory(dataDirectory);
  return report;
}

type InTransaction = <T>(act: (tx: CatalogTransaction) => Promise<T>) => Promise<T>;

async function taking(report: RebuildReport, where: string, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    report.refused.push({ where, what: messageOf(error) });
  }
}

async function rebuildVolume(
  files: PoolFiles,
  directory: string,
  transaction: InTransaction,
): Promise<RebuildReport['volumes'][number]> {
  const paths = volumePaths(directory);
  if (!(await files.exists(paths.volumeFile)))
    throw new MidmirrorError('not-found', 'has no volume.json: its making or removal was interrupted');
  const volume = await readVolumeFile(files, paths);
  const state = await readMimState(files, paths);
  if (state === null) throw new MidmirrorError('corrupt', `${paths.mimState}: both slots are damaged`);
  const lost: string[] = [];
  const objects = await readObjects(files, paths, lost);
  const kept = contiguous(objects, state, lost);
  const marks = [...marksOfObjects(kept), ...(await marksOfSegments(files, paths, lost))];
  return await transaction(async (tx) => {
    await insertVolume(tx, volume, state);
    await insertObjects(tx, volume.id, kept);
    for (const mark of marks) {
      const row = {
        volume_id: volume.id,
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
    if (state.syncId !== 0) await insertSync(tx, volume.id, state, kept);
    const names = new Set(marks.map((mark) => mark.name));
    return {
      name: volume.name,
      mimSeq: state.mimSeq,
      snapshots: new Set(kept.map(({ header }) => header.snapshot)).size,
      marks: names.size,
      lost,
    };
  });
}

async function insertVolume(tx: CatalogTransaction, volume: VolumeFile, state: MimState): Promise<void> {
  const { id, name, sizeBytes, createdNs, policy } = volume;
  await tx
    .insertInto('volume')
    .values({
      id,
      name,
      size_bytes: sizeBytes,
      policy: JSON.stringify(policy),
      state: 'active',
      created_ns: toNs(BigInt(createdNs)),
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

/** A sync was writing to the MIM: it is repeated from the journal when the appliance starts. */
async function insertSync(
  tx: CatalogTransaction,
  volumeId: string,
  state: MimState,
  objects: FoundObject[],
): Promise<void> {
  const object = objects.find(
    ({ header }) => header.syncId === state.syncId && header.toSeq === state.targetSeq,
  );
  if (object === undefined)
    throw new MidmirrorError(
      'corrupt',
      `sync ${state.syncId} was writing to the MIM and what it had saved is missing`,
    );
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
      snapshot: object.header.snapshot,
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
          marks.push({
            ...decodeMark(await readBytes(file, d.dataOffset, d.length)),
            seq: d.seq,
            timeNs: batch.timeNs,
          });
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

async function rebuildClone(
  files: PoolFiles,
  directory: string,
  volumes: ReadonlySet<string>,
  transaction: InTransaction,
): Promise<string | null> {
  if (!(await files.exists(`${directory}/clone.json`))) return null;
  const clone = await readCloneFile(files, directory);
  if (!volumes.has(clone.volumeId))
    throw new MidmirrorError('not-found', `its volume ${clone.volumeId} is not in the pool`);
  await transaction(async (tx) => {
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
  });
  return clone.name;
}
