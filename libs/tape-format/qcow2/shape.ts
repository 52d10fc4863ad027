// Where things stand in a qcow2 file of ours (qemu, docs/interop/qcow2.txt, version 3). In this order, without gaps:
//   header | refcount table | refcount blocks | L1 table | for each L2 table that is needed: the table, its clusters
// Every cluster of the file is used once, so every refcount is 1. A table stands before the clusters that it places:
// a reader needs only the L1 table and one L2 table in memory. Everything follows from the volume's size, the count of
// clusters in the file and the backing file's name, so a reader compares bytes instead of believing them.
import { assert } from '@midmirror/basis';

const CLUSTER_BITS = 16;
export const CLUSTER_BYTES = 2 ** CLUSTER_BITS;
/** Entries of a table that fills a cluster; an L2 table maps 512 MiB. */
export const TABLE_ENTRIES = CLUSTER_BYTES / 8;
export const L2_SPAN_BYTES = TABLE_ENTRIES * CLUSTER_BYTES;
/** A refcount has 16 bits. */
const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2;
const HEADER_BYTES = 104;
const BACKING_FORMAT_EXTENSION = 0xe2792aca;
const BACKING_FORMAT = 'qcow2';
/** Bit 63 of an entry: the refcount is 1. */
const COPIED = 0x8000_0000;
/** L2 entry of a cluster that reads as zeroes and stands nowhere. */
export const ZERO_ENTRY_LOW = 1;

export interface Qcow2Shape {
  sizeBytes: number;
  /** Name of the backing file, null: none. Its format is qcow2. */
  backing: string | null;
  /** Clusters of the whole file. */
  clusters: number;
  refcountTableClusters: number;
  refcountBlocks: number;
  l1Entries: number;
  l1Clusters: number;
}

/** `payloadClusters`: L2 tables and data. */
export function shapeOfPayload(
  sizeBytes: number,
  backing: string | null,
  payloadClusters: number,
): Qcow2Shape {
  const l1Entries = Math.ceil(sizeBytes / L2_SPAN_BYTES);
  const rest = 1 + Math.ceil(l1Entries / TABLE_ENTRIES) + payloadClusters;
  // Refcounts count their own clusters too: the least number that is enough for itself.
  let clusters = rest;
  for (;;) {
    const grown = rest + refcountClusters(clusters);
    if (grown === clusters) break;
    clusters = grown;
  }
  return shapeOfFile(sizeBytes, backing, clusters);
}

export function shapeOfFile(sizeBytes: number, backing: string | null, clusters: number): Qcow2Shape {
  const l1Entries = Math.ceil(sizeBytes / L2_SPAN_BYTES);
  const refcountBlocks = Math.ceil(clusters / REFCOUNTS_PER_BLOCK);
  return {
    sizeBytes,
    backing,
    clusters,
    refcountTableClusters: Math.ceil(refcountBlocks / TABLE_ENTRIES),
    refcountBlocks,
    l1Entries,
    l1Clusters: Math.ceil(l1Entries / TABLE_ENTRIES),
  };
}

function refcountClusters(clusters: number): number {
  const blocks = Math.ceil(clusters / REFCOUNTS_PER_BLOCK);
  return blocks + Math.ceil(blocks / TABLE_ENTRIES);
}

/** The cluster where the first L2 table stands, or the file ends. */
export function payloadCluster(shape: Qcow2Shape): number {
  return 1 + shape.refcountTableClusters + shape.refcountBlocks + shape.l1Clusters;
}

export function encodeHeader(shape: Qcow2Shape): Buffer {
  const header = Buffer.alloc(CLUSTER_BYTES);
  header.write('QFI\xfb', 0, 'latin1');
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(CLUSTER_BITS, 20);
  writeNumber(header, 24, shape.sizeBytes, 0);
  header.writeUInt32BE(shape.l1Entries, 36);
  writeNumber(header, 40, (payloadCluster(shape) - shape.l1Clusters) * CLUSTER_BYTES, 0);
  writeNumber(header, 48, CLUSTER_BYTES, 0);
  header.writeUInt32BE(shape.refcountTableClusters, 56);
  header.writeUInt32BE(4, 96); // 2^4 bits of a refcount
  header.writeUInt32BE(HEADER_BYTES, 100);
  if (shape.backing === null) return header; // what follows is zero: the end of the extensions
  header.writeUInt32BE(BACKING_FORMAT_EXTENSION, HEADER_BYTES);
  header.writeUInt32BE(BACKING_FORMAT.length, HEADER_BYTES + 4);
  header.write(BACKING_FORMAT, HEADER_BYTES + 8, 'ascii');
  const name = Buffer.from(shape.backing);
  assert(name.length <= 1023, 'a name of a backing file that qemu takes');
  const at = HEADER_BYTES + 8 + 8 + 8;
  name.copy(header, at);
  writeNumber(header, 8, at, 0);
  header.writeUInt32BE(name.length, 16);
  return header;
}

/** One cluster of the refcount table, `index` counted from 0. */
export function encodeRefcountTable(shape: Qcow2Shape, index: number): Buffer {
  const table = Buffer.alloc(CLUSTER_BYTES);
  const from = index * TABLE_ENTRIES;
  const until = Math.min(from + TABLE_ENTRIES, shape.refcountBlocks);
  for (let block = from; block < until; block += 1)
    writeNumber(table, (block - from) * 8, (1 + shape.refcountTableClusters + block) * CLUSTER_BYTES, 0);
  return table;
}

export function encodeRefcountBlock(shape: Qcow2Shape, index: number): Buffer {
  const block = Buffer.alloc(CLUSTER_BYTES);
  const used = Math.min(REFCOUNTS_PER_BLOCK, shape.clusters - index * REFCOUNTS_PER_BLOCK);
  for (let entry = 0; entry < used; entry += 1) block[entry * 2 + 1] = 1;
  return block;
}

/** Writes the place of a cluster into a table of L1 or L2. */
export function writePlace(table: Buffer, entry: number, cluster: number): void {
  writeNumber(table, entry * 8, cluster * CLUSTER_BYTES, COPIED);
}

/** The cluster that an entry of a table places, 0: none, -1: it is nothing that we write. */
export function readPlace(table: Buffer, entry: number): number {
  const high = table.readUInt32BE(entry * 8);
  const low = table.readUInt32BE(entry * 8 + 4);
  if (high === 0 && low === 0) return 0;
  if (high < COPIED || low % CLUSTER_BYTES !== 0) return -1;
  const cluster = ((high - COPIED) * 2 ** 32 + low) / CLUSTER_BYTES;
  return Number.isSafeInteger(cluster) && cluster > 0 ? cluster : -1;
}

export function isZeroEntry(table: Buffer, entry: number): boolean {
  return table.readUInt32BE(entry * 8) === 0 && table.readUInt32BE(entry * 8 + 4) === ZERO_ENTRY_LOW;
}

function writeNumber(target: Buffer, at: number, value: number, flagsHigh: number): void {
  target.writeUInt32BE((Math.floor(value / 2 ** 32) + flagsHigh) >>> 0, at);
  target.writeUInt32BE(value % 2 ** 32, at + 4);
}
