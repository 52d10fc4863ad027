// The movelist of a sync: the net change of the journal between two points [0047].
import { ExtentMap } from '@midmirror/extent-map';
import {
  decodeSegmentHeader,
  descriptorsOf,
  Format,
  putDescriptor,
  type SegmentFooter,
  type SegmentHeader,
} from '@midmirror/journal';
import {
  type PieceReader,
  segmentsOf,
  type PoolFile,
  type PoolFiles,
  readBytes,
  readSegmentFooter,
  type VolumePaths,
} from '@midmirror/pool';
import { MidmirrorError } from '@midmirror/basis';

/** Net change of the writes in `(afterSeq, toSeq]`, and the time of its first and last write. */
export async function forwardMovelist(
  files: PoolFiles,
  paths: VolumePaths,
  pieces: PieceReader,
  afterSeq: number,
  toSeq: number,
): Promise<{ moves: ExtentMap; firstNs: bigint; lastNs: bigint }> {
  const moves = new ExtentMap();
  let firstNs = 0n;
  let lastNs = 0n;
  let covered = afterSeq;
  for (const segment of await segmentsAfter(files, paths, afterSeq)) {
    if (covered >= toSeq) break;
    const reader = await pieces.segment(segment);
    for await (const { batch, bytes } of reader.batches(afterSeq, toSeq)) {
      const lastSeq = batch.firstSeq + batch.writeCount - 1;
      if (batch.writeCount === 0 || lastSeq <= covered) continue;
      if (batch.firstSeq > covered + 1) break;
      for (const d of descriptorsOf(bytes, 0, batch)) {
        if (d.seq <= afterSeq || d.seq > toSeq) continue;
        putDescriptor(moves, d, segment);
        const timeNs = batch.timeNs + BigInt(d.seq - batch.firstSeq);
        if (firstNs === 0n) firstNs = timeNs;
        lastNs = timeNs;
      }
      covered = Math.min(lastSeq, toSeq);
    }
  }
  if (covered < toSeq) {
    throw new MidmirrorError('corrupt', `writes ${covered + 1} to ${toSeq} are not in ${paths.forward}`, {
      hint: 'run `mim verify` on the volume',
    });
  }
  return { moves, firstNs, lastNs };
}

/**
 * Segments that hold writes after `afterSeq`, in the order of the journal. The others are free: the ring may rename
 * and write them at any moment. Those with such writes stay as they are until the MIM has passed them.
 */
async function segmentsAfter(files: PoolFiles, paths: VolumePaths, afterSeq: number): Promise<number[]> {
  const numbers: number[] = [];
  for (const { name, segment } of segmentsOf(await files.list(paths.forward))) {
    const file = await openIfThere(files, `${paths.forward}/${name}`);
    if (file === null) continue; // renamed since it was listed
    try {
      if (await holdsWritesAfter(file, segment, afterSeq)) numbers.push(segment);
    } finally {
      await file.close();
    }
  }
  return numbers;
}

async function openIfThere(files: PoolFiles, path: string): Promise<PoolFile | null> {
  try {
    return await files.open(path, 'read');
  } catch (error) {
    if (error instanceof MidmirrorError && error.code === 'not-found') return null;
    throw error;
  }
}

/** Damage of a footer shows here, before anything is moved; but not what looks like it in a file used anew. */
async function holdsWritesAfter(file: PoolFile, segment: number, afterSeq: number): Promise<boolean> {
  const isIt = async (): Promise<SegmentHeader | null> => {
    const header = decodeSegmentHeader(await readBytes(file, 0, Format.segmentHeaderBytes));
    return header?.segment === segment ? header : null;
  };
  const header = await isIt();
  if (header === null) return false;
  let footer: SegmentFooter | null;
  try {
    footer = await readSegmentFooter(file, header);
  } catch (error) {
    if ((await isIt()) === null) return false;
    throw error;
  }
  return footer === null ? (await isIt()) !== null : footer.lastSeq > afterSeq;
}
