// gaps/<epoch>.json: the gaps of a volume, for as long as any of its points may lie in one; segments, whose records say
// where each begins and ends, are recycled long before. Each owner of the journal writes a file of its own, and the one
// of the greatest epoch counts: who has lost the volume can write to none that counts (I5).
import { MidmirrorError } from '@midmirror/basis';
import type { Gap } from '@midmirror/point';
import { type PoolFiles, readWhole, replaceFile } from './files.ts';
import type { VolumePaths } from './layout.ts';
import { limits } from './limits.ts';

/** Empty: there has been none. Throws `corrupt`: without it nobody knows which points must be refused. */
export async function readGaps(files: PoolFiles, { gaps }: Pick<VolumePaths, 'gaps'>): Promise<Gap[]> {
  const newest = (await epochsOf(files, gaps)).at(-1);
  if (newest === undefined) return [];
  const path = pathOf(gaps, newest);
  return parse(await readWhole(files, path, limits.gapFileBytesMax), path);
}

/** Durable when it resolves; those of the owners before are removed. */
export async function writeGaps(
  files: PoolFiles,
  { gaps: directory }: Pick<VolumePaths, 'gaps'>,
  epoch: number,
  gaps: readonly Gap[],
): Promise<void> {
  await files.makeDirectory(directory);
  const told = gaps.map(({ fromNs, toNs, ...gap }) => ({
    ...gap,
    fromNs: String(fromNs),
    toNs: toNs === null ? null : String(toNs),
  }));
  const text = `${JSON.stringify({ format: 1, gaps: told }, null, 1)}\n`;
  await replaceFile(files, directory, nameOf(epoch), new TextEncoder().encode(text));
  for (const older of await epochsOf(files, directory))
    if (older < epoch) await files.unlink(pathOf(directory, older));
}

/** Ascending. */
async function epochsOf(files: PoolFiles, directory: string): Promise<number[]> {
  const names = await files.list(directory);
  return names
    .flatMap((name) => /^(\d{8,})\.json$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

function nameOf(epoch: number): string {
  return `${String(epoch).padStart(8, '0')}.json`;
}

function pathOf(directory: string, epoch: number): string {
  return `${directory}/${nameOf(epoch)}`;
}

interface StoredGap extends Omit<Gap, 'fromNs' | 'toNs'> {
  fromNs: string;
  toNs: string | null;
}

function parse(bytes: Uint8Array, path: string): Gap[] {
  try {
    const { format, gaps } = JSON.parse(new TextDecoder().decode(bytes)) as {
      format: unknown;
      gaps: StoredGap[];
    };
    if (format !== 1) throw new Error(`it has format ${String(format)}; this Midmirror reads format 1`);
    return gaps.map(({ number, fromSeq, fromNs, toSeq, toNs, reason }) => {
      const numbers = toSeq === null ? [number, fromSeq] : [number, fromSeq, toSeq];
      if (!numbers.every(Number.isSafeInteger)) throw new Error('a gap has no number, or no place');
      return {
        number,
        fromSeq,
        fromNs: BigInt(fromNs),
        toSeq,
        toNs: toNs === null ? null : BigInt(toNs),
        reason,
      };
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MidmirrorError('corrupt', `${path} can't be read: ${why}`, {
      hint: 'it says which moments must not be read; put it back from a copy of the pool, or move it away if every moment may be',
      cause,
    });
  }
}
