// Extents of a volume, in bytes, to runs of whole clusters. A cluster that holds any data is data as a whole: it is
// read from the volume, which is right everywhere. Nothing is kept but the run and the cluster under way.
import { MidmirrorError } from '@midmirror/basis';
import type { ArchiveKind } from '../manifest.ts';
import { CLUSTER_BYTES } from './shape.ts';

/** Ascending, not overlapping. Where there is none, an image reads as zeroes, a difference as its parent. */
export interface TapeExtent {
  startBytes: number;
  lengthBytes: number;
  kind: 'data' | 'zero';
}

export interface ClusterRun {
  first: number;
  count: number;
  kind: 'data' | 'zero';
}

/** Runs ascend, and two that touch are of different kinds. Of an image there are runs of data only. Throws `bad-request`. */
export function* clusterRuns(
  extents: Iterable<TapeExtent>,
  volume: { sizeBytes: number; kind: ArchiveKind },
): Generator<ClusterRun, void, undefined> {
  let run: ClusterRun | null = null;
  for (const next of wholeClusters(extents, volume)) {
    if (next.kind === 'zero' && volume.kind === 'image') continue;
    if (run !== null && run.kind === next.kind && run.first + run.count === next.first) {
      run.count += next.count;
      continue;
    }
    if (run !== null) yield run;
    run = next;
  }
  if (run !== null) yield run;
}

function* wholeClusters(
  extents: Iterable<TapeExtent>,
  { sizeBytes, kind }: { sizeBytes: number; kind: ArchiveKind },
): Generator<ClusterRun, void, undefined> {
  // The cluster that more extents may touch, and how much of it is said to be zeroes.
  let open = -1;
  let openHasData = false;
  let openZeroBytes = 0;
  let endBytes = 0;
  const closed = (): ClusterRun[] => {
    if (open < 0) return [];
    const whole = Math.min(CLUSTER_BYTES, sizeBytes - open * CLUSTER_BYTES);
    // The rest of a cluster that is partly zeroes: in an image zeroes too, in a difference the parent's.
    const zero = !openHasData && (kind === 'image' || openZeroBytes === whole);
    return [{ first: open, count: 1, kind: zero ? 'zero' : 'data' }];
  };
  const reopen = (cluster: number): void => {
    open = cluster;
    openHasData = false;
    openZeroBytes = 0;
  };
  for (const extent of extents) {
    checkExtent(extent, endBytes, sizeBytes);
    const isData = extent.kind === 'data';
    let at = extent.startBytes;
    endBytes = at + extent.lengthBytes;
    while (at < endBytes) {
      const cluster = Math.floor(at / CLUSTER_BYTES);
      if (cluster !== open) {
        yield* closed();
        reopen(-1);
        const whole = at % CLUSTER_BYTES === 0 ? Math.floor((endBytes - at) / CLUSTER_BYTES) : 0;
        if (whole > 0) {
          yield { first: cluster, count: whole, kind: extent.kind };
          at += whole * CLUSTER_BYTES;
          continue;
        }
        reopen(cluster);
      }
      const part = Math.min(endBytes, (cluster + 1) * CLUSTER_BYTES) - at;
      if (isData) openHasData = true;
      else openZeroBytes += part;
      at += part;
    }
  }
  yield* closed();
}

function checkExtent({ startBytes, lengthBytes }: TapeExtent, endBytes: number, sizeBytes: number): void {
  const whole = Number.isSafeInteger(startBytes) && Number.isSafeInteger(lengthBytes);
  if (whole && startBytes >= endBytes && lengthBytes > 0 && startBytes + lengthBytes <= sizeBytes) return;
  throw new MidmirrorError(
    'bad-request',
    `extent ${startBytes}+${lengthBytes} is wrong after ${endBytes} in a volume of ${sizeBytes} bytes`,
    { hint: 'extents ascend, do not overlap, are not empty and end with the volume' },
  );
}
