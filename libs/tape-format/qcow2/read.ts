// Reads a qcow2 file that is laid out as `shape.ts` says, as a stream, to ranges of the volume. Each table is compared
// with what it has to be before a byte that it places is given.
import { limits } from '../limits.ts';
import type { ArchiveKind } from '../manifest.ts';
import {
  CLUSTER_BYTES,
  encodeHeader,
  encodeRefcountBlock,
  encodeRefcountTable,
  isZeroEntry,
  L2_SPAN_BYTES,
  payloadCluster,
  type Qcow2Shape,
  readPlace,
  TABLE_ENTRIES,
} from './shape.ts';

/** Ascending, not overlapping, `bytes` the receiver's own, unless one buffer was to be reused. Of an image they cover the volume; of a difference the rest is its parent's. */
export type RestoredRange =
  | { kind: 'data'; startBytes: number; lengthBytes: number; bytes: Buffer }
  | { kind: 'zero'; startBytes: number; lengthBytes: number };

/** A part of the file is not what it has to be: damaged, or laid out by another program. */
export class LayoutMismatch extends Error {
  readonly part: string;
  constructor(part: string) {
    super(`the ${part} is not laid out by Midmirror`);
    this.part = part;
  }
}

/** The bytes of the file, in order. Rejects when there are fewer. */
export interface FileSource {
  fill(target: Uint8Array): Promise<void>;
}

/** Throws LayoutMismatch, and what `source` rejects with. */
export async function* restoredRanges(
  source: FileSource,
  shape: Qcow2Shape,
  kind: ArchiveKind,
  reuseBuffer = false,
): AsyncGenerator<RestoredRange, void, undefined> {
  const table = Buffer.alloc(CLUSTER_BYTES);
  const reused = reuseBuffer ? Buffer.allocUnsafeSlow(limits.pieceBytesMax) : null;
  const compare = async (part: string, expected: Buffer): Promise<void> => {
    await source.fill(table);
    if (!table.equals(expected)) throw new LayoutMismatch(part);
  };
  await compare('qcow2 header', encodeHeader(shape));
  for (let i = 0; i < shape.refcountTableClusters; i += 1)
    await compare('refcount table', encodeRefcountTable(shape, i));
  for (let i = 0; i < shape.refcountBlocks; i += 1)
    await compare(`refcount block ${i}`, encodeRefcountBlock(shape, i));
  const tables = await readL1(source, shape);

  // An image covers the volume: what stands nowhere is zeroes. `coveredBytes`: up to here it is said.
  let coveredBytes = 0;
  for (const [index, { entry, cluster }] of tables.entries()) {
    const part = `L2 table ${entry}`;
    await source.fill(table);
    const end = tables[index + 1]?.cluster ?? shape.clusters;
    const runs = runsOfTable(table, entry, cluster, end, shape, kind, part);
    for (const { startBytes, lengthBytes, isData } of runs) {
      if (kind === 'image' && startBytes > coveredBytes)
        yield { kind: 'zero', startBytes: coveredBytes, lengthBytes: startBytes - coveredBytes };
      coveredBytes = startBytes + lengthBytes;
      if (!isData) yield { kind: 'zero', startBytes, lengthBytes };
      else yield* dataRanges(source, startBytes, lengthBytes, reused);
    }
  }
  if (kind === 'image' && coveredBytes < shape.sizeBytes)
    yield { kind: 'zero', startBytes: coveredBytes, lengthBytes: shape.sizeBytes - coveredBytes };
}

async function* dataRanges(
  source: FileSource,
  startBytes: number,
  lengthBytes: number,
  reused: Buffer | null,
): AsyncGenerator<RestoredRange, void, undefined> {
  for (let done = 0; done < lengthBytes; done += limits.pieceBytesMax) {
    const inVolume = Math.min(limits.pieceBytesMax, lengthBytes - done);
    // The last cluster stands in the file whole, also where the volume ends within it.
    const inFile = Math.ceil(inVolume / CLUSTER_BYTES) * CLUSTER_BYTES;
    const bytes = reused?.subarray(0, inFile) ?? Buffer.allocUnsafeSlow(inFile);
    await source.fill(bytes);
    yield {
      kind: 'data',
      startBytes: startBytes + done,
      lengthBytes: inVolume,
      bytes: bytes.subarray(0, inVolume),
    };
  }
}

interface PlacedTable {
  entry: number;
  cluster: number;
}

async function readL1(source: FileSource, shape: Qcow2Shape): Promise<PlacedTable[]> {
  const tables: PlacedTable[] = [];
  const l1 = Buffer.alloc(CLUSTER_BYTES);
  let expectedMin = payloadCluster(shape);
  for (let part = 0; part < shape.l1Clusters; part += 1) {
    await source.fill(l1);
    for (let i = 0; i < TABLE_ENTRIES; i += 1) {
      const cluster = readPlace(l1, i);
      if (cluster === 0) continue;
      const entry = part * TABLE_ENTRIES + i;
      const first = tables.length === 0;
      const wrong = entry >= shape.l1Entries || cluster < expectedMin || cluster >= shape.clusters;
      if (wrong || (first && cluster !== expectedMin)) throw new LayoutMismatch('L1 table');
      tables.push({ entry, cluster });
      expectedMin = cluster + 1;
    }
  }
  if (tables.length === 0 && shape.clusters !== expectedMin) throw new LayoutMismatch('L1 table');
  return tables;
}

interface TableRun {
  startBytes: number;
  lengthBytes: number;
  isData: boolean;
}

/** `cluster`: where the table stands; `end`: where its last cluster has to end. */
function runsOfTable(
  table: Buffer,
  l1Entry: number,
  cluster: number,
  end: number,
  shape: Qcow2Shape,
  kind: ArchiveKind,
  part: string,
): TableRun[] {
  const runs: TableRun[] = [];
  let next = cluster + 1;
  for (let entry = 0; entry < TABLE_ENTRIES; entry += 1) {
    const isZero = isZeroEntry(table, entry);
    const place = isZero ? 0 : readPlace(table, entry);
    if (!isZero && place === 0) continue;
    const startBytes = l1Entry * L2_SPAN_BYTES + entry * CLUSTER_BYTES;
    const isWrong = isZero ? kind === 'image' : place !== next;
    if (isWrong || startBytes >= shape.sizeBytes) throw new LayoutMismatch(part);
    if (!isZero) next += 1;
    const lengthBytes = Math.min(CLUSTER_BYTES, shape.sizeBytes - startBytes);
    const last = runs.at(-1);
    if (last !== undefined && last.isData === !isZero && last.startBytes + last.lengthBytes === startBytes)
      last.lengthBytes += lengthBytes;
    else runs.push({ startBytes, lengthBytes, isData: !isZero });
  }
  if (next !== end) throw new LayoutMismatch(part);
  return runs;
}
