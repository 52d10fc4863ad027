// The index from the pool: the pages of every run made again from the segment's footer or the object that it maps.
// Points, snapshots and marks in the catalogue stay as they are. Merged runs are left out: the appliance makes them
// again.
import { messageOf, MidmirrorError } from '@midmirror/basis';
import {
  activeVolumes,
  type Catalog,
  deleteRunById,
  insertRun,
  openEmbeddedCatalog,
  type StoredRun,
} from '@midmirror/catalog';
import type { ExtentMap } from '@midmirror/extent-map';
import {
  objectName,
  PieceReader,
  type PoolFiles,
  readObject,
  type VolumePaths,
  volumePaths,
} from '@midmirror/pool';

export interface RebuildIndexReport {
  volumes: { name: string; runs: number; extents: number }[];
  /** Runs whose source can't be read: they stay as they were. */
  refused: { where: string; what: string }[];
}

/** The caller sees to it that nobody else uses the catalogue. */
export async function rebuildIndex(
  files: PoolFiles,
  poolDirectory: string,
  catalog: Catalog,
): Promise<RebuildIndexReport> {
  const report: RebuildIndexReport = { volumes: [], refused: [] };
  const volumes = await activeVolumes(catalog.db);
  for (const { id, name } of volumes) {
    const paths = volumePaths(`${poolDirectory}/volumes/${id}`);
    const made = { name, runs: 0, extents: 0 };
    const runs = await catalog.db.selectFrom('run').selectAll().where('volume_id', '=', id).execute();
    for (const run of runs) {
      if (run.level !== 0) await deleteRunById(catalog.db, run.id);
      else await makeAgain(files, catalog, paths, run, made, report);
    }
    report.volumes.push(made);
  }
  return report;
}

/** The data directory is locked by the caller. */
export async function rebuildEmbeddedIndex(
  files: PoolFiles,
  dataDirectory: string,
): Promise<RebuildIndexReport> {
  const catalog = await openEmbeddedCatalog(`${dataDirectory}/catalog.db`);
  try {
    return await rebuildIndex(files, `${dataDirectory}/pool`, catalog);
  } finally {
    await catalog.close();
  }
}

async function makeAgain(
  files: PoolFiles,
  catalog: Catalog,
  paths: VolumePaths,
  run: StoredRun,
  made: RebuildIndexReport['volumes'][number],
  report: RebuildIndexReport,
): Promise<void> {
  try {
    const extents = await (run.side === 'forward'
      ? extentsOfSegment(files, paths, run.source)
      : extentsOfObject(files, paths, run.source));
    const { volume_id, side, source, snapshot, from_seq, to_seq, data_bytes } = run;
    const again = { volume_id, side, source, snapshot, from_seq, to_seq, data_bytes };
    await catalog.transaction((tx) => insertRun(tx, { ...again, extents: extents.size }, extents));
    made.runs += 1;
    made.extents += extents.size;
  } catch (error) {
    const kind = run.side === 'forward' ? 'segment' : 'object';
    report.refused.push({ where: `volume ${made.name}, ${kind} ${run.source}`, what: messageOf(error) });
  }
}

async function extentsOfSegment(files: PoolFiles, paths: VolumePaths, segment: number): Promise<ExtentMap> {
  const pieces = new PieceReader(files, paths);
  try {
    const footer = await (await pieces.segment(segment)).footer();
    if (footer !== null) return footer.extents;
    throw new MidmirrorError(
      'corrupt',
      `segment ${segment} in ${paths.forward} was sealed and has no footer`,
    );
  } finally {
    await pieces.close();
  }
}

async function extentsOfObject(files: PoolFiles, paths: VolumePaths, object: number): Promise<ExtentMap> {
  const file = await files.open(`${paths.backward}/${objectName(object)}`, 'read');
  try {
    return (await readObject(file)).extents;
  } finally {
    await file.close();
  }
}
