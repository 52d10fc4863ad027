// What the index tells of itself when somebody looks.
import { activeVolumes, type CatalogReader, runCounts } from '@midmirror/catalog';
import type { PageCache } from '@midmirror/runs';
import type { Report } from '@midmirror/telemetry';

export async function reportIndex(
  report: Report,
  db: CatalogReader,
  mirrorsOf: (volumeId: string) => number,
): Promise<void> {
  const volumes = await activeVolumes(db);
  const names = new Map(volumes.map(({ id, name }) => [id, name]));
  for (const [id, volume] of names) report('midmirror_mirrors_open', { volume }, mirrorsOf(id));
  for (const { volumeId, side, level, runs } of await runCounts(db)) {
    const volume = names.get(volumeId);
    if (volume !== undefined) report('midmirror_index_runs', { volume, side, level: String(level) }, runs);
  }
}

export function reportCache(report: Report, { bytes, bytesMax, hits, misses }: PageCache): void {
  report('midmirror_index_cache_bytes', {}, bytes);
  report('midmirror_index_cache_limit_bytes', {}, bytesMax);
  report('midmirror_index_cache_hits_total', {}, hits);
  report('midmirror_index_cache_misses_total', {}, misses);
}
