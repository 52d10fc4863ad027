// Where the files of a volume lie in the pool, and how their names are read back.
//
//   volumes/<volume-id>/volume.json · mim.img · mim.alloc · mim.state · forward/<epoch>-<n>.seg · backward/<n>.obj
//   volumes/<volume-id>/claims/<epoch>.claim, .released · gaps/<epoch>.json
//   clones/<clone-id>/clone.json · forward/<epoch>-<n>.seg

export interface VolumePaths {
  directory: string;
  volumeFile: string;
  mimImage: string;
  mimAllocation: string;
  mimState: string;
  forward: string;
  /** Who may write the forward journal. */
  claims: string;
  /** Which moments are not available. */
  gaps: string;
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
    claims: `${directory}/claims`,
    gaps: `${directory}/gaps`,
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

/**
 * The segments of a folder, by number. Without those that a writer made after another had taken its place: epochs never
 * fall as numbers rise.
 */
export function segmentsOf(names: readonly string[]): { name: string; epoch: number; segment: number }[] {
  const places = names.flatMap((name) => {
    const place = parseSegmentName(name);
    return place === null ? [] : [{ name, ...place }];
  });
  places.sort((a, b) => a.segment - b.segment || b.epoch - a.epoch);
  let epoch = 0;
  return places.filter((place) => {
    epoch = Math.max(epoch, place.epoch);
    return place.epoch === epoch;
  });
}

export function objectName(object: number): string {
  return `${String(object).padStart(8, '0')}.obj`;
}

/** Null for a name that is not an object's. */
export function parseObjectName(name: string): number | null {
  const match = /^(\d{8,})\.obj$/.exec(name);
  return match === null ? null : Number(match[1]);
}
