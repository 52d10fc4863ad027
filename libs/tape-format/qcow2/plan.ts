// Writes a volume as a qcow2 stream. A first pass over the extents counts clusters, which gives the shape; a second one
// makes the pieces in the order of the file. Memory: 4 bytes for each 512 MiB of volume, and one table.
import { assert } from '@midmirror/basis';
import { limits } from '../limits.ts';
import type { ArchiveKind } from '../manifest.ts';
import { type ClusterRun, clusterRuns, type TapeExtent } from './cluster-runs.ts';
import {
  CLUSTER_BYTES,
  encodeHeader,
  encodeRefcountBlock,
  encodeRefcountTable,
  payloadCluster,
  type Qcow2Shape,
  shapeOfPayload,
  TABLE_ENTRIES,
  writePlace,
  ZERO_ENTRY_LOW,
} from './shape.ts';

export interface Qcow2Plan {
  readonly shape: Qcow2Shape;
  /** Of the file. */
  readonly bytes: number;
  /** That will be read from the volume. */
  readonly dataBytes: number;
  readonly zeroBytes: number;
  readonly kind: ArchiveKind;
  /** Clusters of data under each L2 table, -1: the table is not needed. */
  readonly dataClusters: Int32Array;
}

/** Part of the file: bytes as they are, or `lengthBytes` of the volume, filled up with zeroes to whole clusters. */
export type Qcow2Piece =
  | { kind: 'table'; bytes: Buffer }
  | { kind: 'data'; startBytes: number; lengthBytes: number; padBytes: number };

/** `backing`: name of the parent's file; null, and only then, for an image. */
export function planQcow2(
  sizeBytes: number,
  backing: string | null,
  extents: Iterable<TapeExtent>,
): Qcow2Plan {
  const kind: ArchiveKind = backing === null ? 'image' : 'difference';
  const dataClusters = new Int32Array(Math.ceil(sizeBytes / (CLUSTER_BYTES * TABLE_ENTRIES))).fill(-1);
  let tables = 0;
  let data = 0;
  let dataBytes = 0;
  let zeroBytes = 0;
  for (const run of tableRuns(clusterRuns(extents, { sizeBytes, kind }))) {
    const table = Math.floor(run.first / TABLE_ENTRIES);
    if (dataClusters[table] === -1) {
      dataClusters[table] = 0;
      tables += 1;
    }
    const start = run.first * CLUSTER_BYTES;
    const length = Math.min(run.count * CLUSTER_BYTES, sizeBytes - start);
    if (run.kind === 'zero') {
      zeroBytes += length;
      continue;
    }
    dataClusters[table]! += run.count;
    data += run.count;
    dataBytes += length;
  }
  const shape = shapeOfPayload(sizeBytes, backing, tables + data);
  return { shape, bytes: shape.clusters * CLUSTER_BYTES, dataBytes, zeroBytes, kind, dataClusters };
}

/** `extents`: the same as for the plan. */
export function* qcow2Pieces(
  plan: Qcow2Plan,
  extents: Iterable<TapeExtent>,
): Generator<Qcow2Piece, void, undefined> {
  const { shape, kind } = plan;
  yield { kind: 'table', bytes: encodeHeader(shape) };
  for (let i = 0; i < shape.refcountTableClusters; i += 1)
    yield { kind: 'table', bytes: encodeRefcountTable(shape, i) };
  for (let i = 0; i < shape.refcountBlocks; i += 1)
    yield { kind: 'table', bytes: encodeRefcountBlock(shape, i) };
  yield* l1Pieces(plan);

  let cluster = payloadCluster(shape);
  const runs = tableRuns(clusterRuns(extents, { sizeBytes: shape.sizeBytes, kind }));
  let next = runs.next();
  for (let table = 0; table < shape.l1Entries; table += 1) {
    const expected = plan.dataClusters[table]!;
    if (expected === -1) continue;
    // The runs of one table; 8192 at most.
    const own: ClusterRun[] = [];
    for (; !next.done && Math.floor(next.value.first / TABLE_ENTRIES) === table; next = runs.next())
      own.push(next.value);
    const placed = l2Table(own, cluster + 1);
    assert(placed.end === cluster + 1 + expected, 'the extents are the same in both passes');
    cluster = placed.end;
    yield { kind: 'table', bytes: placed.table };
    for (const run of own) if (run.kind === 'data') yield* dataPieces(run, shape.sizeBytes);
  }
  assert(next.done === true && cluster === shape.clusters, 'the extents are the same in both passes');
}

function* l1Pieces({ shape, dataClusters }: Qcow2Plan): Generator<Qcow2Piece, void, undefined> {
  let cluster = payloadCluster(shape);
  for (let part = 0; part < shape.l1Clusters; part += 1) {
    const bytes = Buffer.alloc(CLUSTER_BYTES);
    const from = part * TABLE_ENTRIES;
    for (let table = from; table < Math.min(from + TABLE_ENTRIES, shape.l1Entries); table += 1) {
      if (dataClusters[table] === -1) continue;
      writePlace(bytes, table - from, cluster);
      cluster += 1 + dataClusters[table]!;
    }
    yield { kind: 'table', bytes };
  }
}

function l2Table(runs: readonly ClusterRun[], firstCluster: number): { table: Buffer; end: number } {
  const table = Buffer.alloc(CLUSTER_BYTES);
  let cluster = firstCluster;
  for (const run of runs) {
    const entry = run.first % TABLE_ENTRIES;
    for (let i = entry; i < entry + run.count; i += 1) {
      if (run.kind === 'zero') table.writeUInt32BE(ZERO_ENTRY_LOW, i * 8 + 4);
      else {
        writePlace(table, i, cluster);
        cluster += 1;
      }
    }
  }
  return { table, end: cluster };
}

function* dataPieces(run: ClusterRun, sizeBytes: number): Generator<Qcow2Piece, void, undefined> {
  const end = (run.first + run.count) * CLUSTER_BYTES;
  for (let start = run.first * CLUSTER_BYTES; start < end; start += limits.pieceBytesMax) {
    const inFile = Math.min(limits.pieceBytesMax, end - start);
    const lengthBytes = Math.min(inFile, sizeBytes - start);
    yield { kind: 'data', startBytes: start, lengthBytes, padBytes: inFile - lengthBytes };
  }
}

/** Cuts runs where the next L2 table begins. */
function* tableRuns(runs: Iterable<ClusterRun>): Generator<ClusterRun, void, undefined> {
  for (const run of runs) {
    const end = run.first + run.count;
    for (let first = run.first; first < end; ) {
      const count = Math.min(end - first, TABLE_ENTRIES - (first % TABLE_ENTRIES));
      yield { first, count, kind: run.kind };
      first += count;
    }
  }
}
