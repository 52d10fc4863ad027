// Plans and writes the archive of a point.
import { MidmirrorError } from '@midmirror/basis';
import { type MirrorSource, probeRate, type RangeList } from '@midmirror/restore';
import {
  type ArchivePlan,
  ArchiveWriting,
  type LayerName,
  type LayerOptions,
  planArchive,
} from '@midmirror/tape-format';
import { type ArchiveLabel, type ArchiveOnTape, archivesOn, type TapeLibrary } from '@midmirror/tape-library';
import { limits } from './limits.ts';
import { pacedReads } from './paced-reads.ts';
import { extentsOf, openPoint, rangesOf } from './point-source.ts';
import type { PlannedArchive, TapeProgress, WriteOrder, WrittenArchive } from './protocol.ts';
import { verifyOrder } from './verify-archive.ts';

export interface WriteEdges {
  library: TapeLibrary;
  identities: readonly string[];
  signal: AbortSignal;
  report: (progress: TapeProgress) => void;
}

interface OpenedPoint {
  source: MirrorSource;
  ranges: RangeList;
  plan: ArchivePlan;
}

export async function planOrder(
  order: WriteOrder,
  { library, signal, report }: Pick<WriteEdges, 'library' | 'signal' | 'report'>,
): Promise<PlannedArchive> {
  const isNew = await needsFirst(library, order);
  return await withPoint(order, signal, report, async ({ source, ranges, plan }) => {
    const { dataBytes, zeroBytes, tarBytes, manifest } = plan;
    const bytes = bytesOnTape(plan);
    const { places, lackingBytes } = isNew ? placesOnFirst(bytes) : await placesOf(library, order, bytes);
    return {
      name: manifest.name,
      dataBytes,
      zeroBytes,
      tarBytes,
      bytesPerSecond: await probeRate(source, ranges),
      cartridges: places.map((place) => ({ ...place, isNew })),
      lackingBytes,
    };
  });
}

export async function writeOrder(order: WriteOrder, edges: WriteEdges): Promise<WrittenArchive> {
  const { library, signal, report } = edges;
  const before = await archiveThere(library, order);
  if (before?.whole === true) {
    const adopted = await adopt(before, order, edges);
    if (adopted !== null) return adopted;
  }
  const isNew = await needsFirst(library, order);
  return await withPoint(order, signal, report, async ({ source, plan }) => {
    if (isNew) await library.add({ barcode: limits.firstBarcode, capacityBytes: limits.firstCartridgeBytes });
    else if (before === null) await refuseLack(library, order, plan);
    return await writePlanned(plan, source, order, edges);
  });
}

async function withPoint<T>(
  order: WriteOrder,
  signal: AbortSignal,
  report: (progress: TapeProgress) => void,
  act: (opened: OpenedPoint) => Promise<T>,
): Promise<T> {
  const { uri, volume, parent } = order;
  report({ phase: 'planning', bytesDone: 0, bytesTotal: 0, barcode: null });
  const sinceSeq = parent?.point.seq ?? null;
  const source = await openPoint({ uri, sizeBytes: volume.sizeBytes, sinceSeq });
  try {
    signal.throwIfAborted();
    const ranges = await rangesOf(source, sinceSeq);
    signal.throwIfAborted();
    const plan = planArchive({
      archive: order.archive,
      volume,
      point: order.point,
      parent: parent === null ? null : { ...parent, volume },
      created: order.created,
      layers: layersOf(order),
      extents: extentsOf(ranges),
    });
    return await act({ source, ranges, plan });
  } finally {
    await source.close();
  }
}

async function writePlanned(
  plan: ArchivePlan,
  source: MirrorSource,
  order: WriteOrder,
  { library, signal, report }: WriteEdges,
): Promise<WrittenArchive> {
  const reads = pacedReads(source);
  const writing = new ArchiveWriting(plan, { read: reads.read, signal });
  const { archive, name, volume, kind, layers } = plan.manifest;
  const label: ArchiveLabel = { archiveId: archive, name, volumeId: volume.id, layers, notes: { kind } };
  const onProgress = ({ barcode }: { barcode: string }): void =>
    report({
      phase: 'writing',
      bytesDone: writing.progress.dataBytesRead,
      bytesTotal: plan.dataBytes,
      barcode,
    });
  const barcodes = order.barcodes === null ? {} : { barcodes: order.barcodes };
  try {
    const written = await library.write(label, writing.chunks(), { signal, onProgress, ...barcodes });
    return { name, layers, ...written, members: writing.summary.members };
  } catch (error) {
    if (error instanceof MidmirrorError && error.code === 'no-space') throw withAddHint(error);
    throw error;
  } finally {
    await reads.ended();
  }
}

/**
 * An archive of this id is whole on the media: the service died before it knew. It is read once. Null: it is damaged,
 * and gone now; nobody has ever been told of it.
 */
async function adopt(
  found: ArchiveOnTape,
  order: WriteOrder,
  edges: WriteEdges,
): Promise<WrittenArchive | null> {
  const { library } = edges;
  const { archiveId, name, layers, parts } = found;
  const sound = { label: { archiveId, name, layers }, parts, sha256: null, uri: order.uri };
  try {
    const { bytes, sha256, members } = await verifyOrder(sound, edges);
    return { name, layers, parts, bytes, sha256, members: members ?? [] };
  } catch (error) {
    if (!(error instanceof MidmirrorError) || error.code !== 'corrupt') throw error;
    for (const part of [...parts].reverse()) await library.erase(part);
    return null;
  }
}

async function archiveThere(library: TapeLibrary, { archive }: WriteOrder): Promise<ArchiveOnTape | null> {
  return archivesOn(await library.list()).find(({ archiveId }) => archiveId === archive) ?? null;
}

/** A directory or bucket without a cartridge gets one by itself, unless it should have some: its disk may not be mounted. */
async function needsFirst(
  library: TapeLibrary,
  { barcodes, archivesThere }: Pick<WriteOrder, 'barcodes' | 'archivesThere'>,
): Promise<boolean> {
  if (library.url.startsWith('tape:') || (await library.list()).length > 0) return false;
  if (archivesThere > 0)
    throw new MidmirrorError(
      'unavailable',
      `${library.url} is empty, and should have ${archivesThere === 1 ? 'an archive' : `${archivesThere} archives`}: its disk may not be mounted`,
      {
        hint: 'mount it; when it is empty for good, `mim tape cartridge add <barcode> --capacity 1TiB` begins it anew',
      },
    );
  return barcodes === null;
}

function placesOnFirst(bytes: number): {
  places: { barcode: string; bytes: number }[];
  lackingBytes: number;
} {
  const taken = Math.min(bytes, limits.firstCartridgeBytes);
  return { places: [{ barcode: limits.firstBarcode, bytes: taken }], lackingBytes: bytes - taken };
}

function placesOf(
  library: TapeLibrary,
  { barcodes }: WriteOrder,
  bytes: number,
): ReturnType<TapeLibrary['plan']> {
  return library.plan(bytes, barcodes === null ? {} : { barcodes });
}

/** Before hours are spent on it. What zstd makes of it, and what a tape that was never read holds, nobody knows. */
async function refuseLack(library: TapeLibrary, order: WriteOrder, plan: ArchivePlan): Promise<void> {
  if (order.zstdLevel !== null) return;
  const { lackingBytes, refused } = await placesOf(library, order, bytesOnTape(plan));
  if (lackingBytes === 0 || refused.some(({ why }) => why.startsWith('never read'))) return;
  const seen = refused.map(({ barcode, why }) => `; ${barcode}: ${why}`).join('');
  throw withAddHint(
    new MidmirrorError(
      'no-space',
      `the cartridges of ${library.url} lack ${lackingBytes} bytes for the archive ${plan.manifest.name}${seen}`,
    ),
  );
}

function withAddHint(error: MidmirrorError): MidmirrorError {
  return new MidmirrorError('no-space', error.message, {
    hint: 'free space on its disk if that is full; else add a cartridge (`mim tape cartridge add <barcode> --capacity 1TiB`), import one, or forget archives with --erase',
    details: error.details,
    cause: error,
  });
}

/** At most: with zstd it is less. */
function bytesOnTape({ tarBytes, manifest }: ArchivePlan): number {
  if (!(manifest.layers as readonly LayerName[]).includes('age')) return tarBytes;
  return tarBytes + Math.ceil(tarBytes / AGE_CHUNK_BYTES) * AGE_TAG_BYTES + AGE_HEADER_BYTES;
}

const AGE_CHUNK_BYTES = 64 << 10;
const AGE_TAG_BYTES = 16;
const AGE_HEADER_BYTES = 16 << 10;

function layersOf({ zstdLevel, recipients }: WriteOrder): LayerOptions {
  return {
    ...(zstdLevel === null ? {} : { zstd: { level: zstdLevel } }),
    ...(recipients.length === 0 ? {} : { age: { recipients } }),
  };
}
