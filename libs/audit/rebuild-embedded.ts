// The embedded catalogue made again: written beside the old one and put in its place only when it is whole; the old
// one is kept.
import { openEmbeddedCatalog } from '@midmirror/catalog';
import type { PoolFiles } from '@midmirror/pool';
import { fillCatalog, type RebuildReport } from './rebuild.ts';

/** The data directory is locked by the caller. `stamp` names the old catalogue's copy. */
export async function rebuildCatalog(
  files: PoolFiles,
  dataDirectory: string,
  stamp: string,
): Promise<RebuildReport> {
  const path = `${dataDirectory}/catalog.db`;
  const fresh = `${path}.rebuild`;
  for (const name of [fresh, `${fresh}-wal`, `${fresh}-shm`])
    if (await files.exists(name)) await files.unlink(name);
  const catalog = await openEmbeddedCatalog(fresh);
  let report: RebuildReport;
  try {
    report = await fillCatalog(files, `${dataDirectory}/pool`, (act) => catalog.transaction(act));
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
