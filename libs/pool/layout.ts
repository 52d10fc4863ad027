// Where the files of a volume lie in the pool, and how their names are read back.
//
//   volumes/<volume-id>/volume.json · mim.img · mim.alloc · mim.state · forward/<epoch>-<n>.seg · backward/<n>.obj
//   clones/<clone-id>/clone.json · forward/<epoch>-<n>.seg
import { MidmirrorError } from '@midmirror/basis';

export interface VolumePaths {
  directory: string;
  volumeFile: string;
  mimImage: string;
  mimAllocation: string;
  mimState: string;
  forward: string;
  backward: string;
}

export function volumePaths(directory: string): VolumePaths {
  return {
    directory,
    volumeFile: `${directory}/volume.json`,
    mimImage: `${directory}/mim.img`,
    mimAllocation: `${directory}/mim.alloc`,
    mimState: `${directory}/mim.state`,
    forward: `${directory}/forward`,
    backward: `${directory}/backward`,
  };
}

export function segmentName(epoch: number, segment: number): string {
  return `${String(epoch).padStart(6, '0')}-${String(segment).padStart(8, '0')}.seg`;
}

/** Null for a name that is not a segment's. */
export function parseSegmentName(name: string): { epoch: number; segment: number } | null {
  const match = /^(\d{6,})-(\d{8,})\.seg$/.exec(name);
  return match === null ? null : { epoch: Number(match[1]), segment: Number(match[2]) };
}

export function objectName(object: number): string {
  return `${String(object).padStart(8, '0')}.obj`;
}

/** Null for a name that is not an object's. */
export function parseObjectName(name: string): number | null {
  const match = /^(\d{8,})\.obj$/.exec(name);
  return match === null ? null : Number(match[1]);
}

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

export function parseCloneFile(bytes: Uint8Array, path: string): CloneFile {
  const parsed = parseJson(bytes, path) as Partial<CloneFile>;
  refuseFormat(parsed.format, path);
  if (typeof parsed.id !== 'string' || typeof parsed.name !== 'string' || !Number.isSafeInteger(parsed.seq)) {
    throw new MidmirrorError('corrupt', `${path} lacks id, name or seq`);
  }
  return parsed as CloneFile;
}

export function parseVolumeFile(bytes: Uint8Array, path: string): VolumeFile {
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
