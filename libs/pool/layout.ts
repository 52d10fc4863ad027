// Where the files of a volume lie in the pool, and how their names are read back.
//
//   volumes/<volume-id>/volume.json · mim.img · mim.alloc · mim.state · forward/<epoch>-<n>.seg · backward/<n>.obj
//   clones/<clone-id>/clone.json · forward/<epoch>-<n>.seg

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
