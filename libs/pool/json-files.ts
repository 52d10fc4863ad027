// volume.json and clone.json: what the pool says of a volume and of a clone, for people and for a rebuild (I7).
import { MidmirrorError } from '@midmirror/basis';
import { type PoolFiles, readWhole, replaceFile } from './files.ts';
import type { VolumePaths } from './layout.ts';

const FILE_BYTES_MAX = 1 << 20;

export interface VolumeFile {
  format: 1;
  id: string;
  name: string;
  sizeBytes: number;
  segmentBytes: number;
  createdNs: string;
  policy: unknown;
}

/** clone.json: what a rebuild of the catalogue needs of a clone. */
export interface CloneFile {
  format: 1;
  id: string;
  name: string;
  volumeId: string;
  seq: number;
  timeNs: string;
  createdNs: string;
}

function parseCloneFile(bytes: Uint8Array, path: string): CloneFile {
  const parsed = parseJson(bytes, path) as Partial<CloneFile>;
  refuseFormat(parsed.format, path);
  if (typeof parsed.id !== 'string' || typeof parsed.name !== 'string' || !Number.isSafeInteger(parsed.seq)) {
    throw new MidmirrorError('corrupt', `${path} lacks id, name or seq`);
  }
  return parsed as CloneFile;
}

function parseVolumeFile(bytes: Uint8Array, path: string): VolumeFile {
  const parsed = parseJson(bytes, path) as Partial<VolumeFile>;
  refuseFormat(parsed.format, path);
  if (
    typeof parsed.id !== 'string' ||
    typeof parsed.name !== 'string' ||
    !Number.isSafeInteger(parsed.sizeBytes)
  ) {
    throw new MidmirrorError('corrupt', `${path} lacks id, name or sizeBytes`);
  }
  return parsed as VolumeFile;
}

function parseJson(bytes: Uint8Array, path: string): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new MidmirrorError('corrupt', `${path} is not JSON`, { cause });
  }
}

function refuseFormat(format: unknown, path: string): void {
  if (format === 1) return;
  throw new MidmirrorError('corrupt', `${path} has format ${String(format)}; this Midmirror reads format 1`, {
    hint: 'use the Midmirror that wrote it, or a newer one',
  });
}

/** Throws `corrupt` for what is not whole or of another format. */
export async function readVolumeFile(files: PoolFiles, paths: VolumePaths): Promise<VolumeFile> {
  return parseVolumeFile(await readWhole(files, paths.volumeFile, FILE_BYTES_MAX), paths.volumeFile);
}

export function writeVolumeFile(files: PoolFiles, paths: VolumePaths, file: VolumeFile): Promise<void> {
  return replaceFile(files, paths.directory, 'volume.json', encodeJson(file));
}

/** Throws `corrupt` for what is not whole or of another format. */
export async function readCloneFile(files: PoolFiles, directory: string): Promise<CloneFile> {
  const path = `${directory}/clone.json`;
  return parseCloneFile(await readWhole(files, path, FILE_BYTES_MAX), path);
}

export function writeCloneFile(files: PoolFiles, directory: string, file: CloneFile): Promise<void> {
  return replaceFile(files, directory, 'clone.json', encodeJson(file));
}

function encodeJson(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}
