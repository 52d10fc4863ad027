// The naive twin: what a volume's extents mean, cluster by cluster, and the whole file made by hand in memory.
import type { ArchiveKind, RestoredRange, TapeExtent } from '../index.ts';

export const CLUSTER = 65536;
export type ClusterKind = 'data' | 'zero' | 'none';

export function naiveClusters(
  extents: readonly TapeExtent[],
  sizeBytes: number,
  kind: ArchiveKind,
): ClusterKind[] {
  const clusters: ClusterKind[] = [];
  for (let start = 0; start < sizeBytes; start += CLUSTER) {
    const end = Math.min(start + CLUSTER, sizeBytes);
    let data = 0;
    let zero = 0;
    for (const extent of extents) {
      const overlap =
        Math.min(end, extent.startBytes + extent.lengthBytes) - Math.max(start, extent.startBytes);
      if (overlap > 0 && extent.kind === 'data') data += overlap;
      if (overlap > 0 && extent.kind === 'zero') zero += overlap;
    }
    if (data > 0) clusters.push('data');
    else if (kind === 'image' || zero === 0) clusters.push('none');
    else clusters.push(zero === end - start ? 'zero' : 'data');
  }
  return clusters;
}

/** What a reader has to say of them: -1 nothing, 0 zeroes, 1 data, for each sector. */
export function naiveCover(
  clusters: readonly ClusterKind[],
  sizeBytes: number,
  kind: ArchiveKind,
): Int8Array {
  const cover = new Int8Array(sizeBytes / 512);
  for (let sector = 0; sector < cover.length; sector += 1) {
    const cluster = clusters[Math.floor((sector * 512) / CLUSTER)]!;
    cover[sector] = cluster === 'data' ? 1 : cluster === 'zero' || kind === 'image' ? 0 : -1;
  }
  return cover;
}

export function coverOf(ranges: readonly RestoredRange[], sizeBytes: number): Int8Array {
  const cover = new Int8Array(sizeBytes / 512).fill(-1);
  for (const { startBytes, lengthBytes, kind } of ranges)
    cover.fill(kind === 'data' ? 1 : 0, startBytes / 512, (startBytes + lengthBytes) / 512);
  return cover;
}
