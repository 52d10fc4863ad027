// What an archive says of itself, as its first member: JSON that people can read. Decoding trusts nothing.
import { FieldReader, type Fields, shown } from './json-fields.ts';
import { limits } from './limits.ts';
import {
  archiveName,
  dataMember,
  isArchiveId,
  isArchiveName,
  isTime,
  isVolumeName,
  MANIFEST_MEMBER,
} from './names.ts';
import { tapeError } from './tape-error.ts';

const FORMAT = 'midmirror-tape';
const FORMAT_VERSION = 1;

export type ArchiveKind = 'image' | 'difference';
/** In the order they are put round the tar stream. */
export type LayerName = 'zstd' | 'age';

export interface TapePoint {
  seq: number;
  /** RFC 3339, UTC, up to nanoseconds. */
  time: string;
}

export interface TapeVolume {
  id: string;
  name: string;
  sizeBytes: number;
}

export interface TapeParent {
  archive: string;
  /** The parent's archive name; its data member, this one's backing file, is `<name>.qcow2`. */
  name: string;
  point: TapePoint;
}

export interface Manifest {
  /** The archive's id. */
  archive: string;
  name: string;
  volume: TapeVolume;
  kind: ArchiveKind;
  point: TapePoint;
  /** Null: an image. */
  parent: TapeParent | null;
  /** Archives that this one needs, its parent first, the image last; of an image none. */
  chain: readonly string[];
  created: string;
  layers: readonly LayerName[];
  data: { member: string; memberBytes: number };
}

/** For who finds the tape and has no Midmirror. */
const HOW_TO_READ: Readonly<Record<ArchiveKind, string>> = {
  image:
    'This is a tar archive. The .qcow2 member is the disk at the point: qemu-img convert -O raw <member> disk.raw. checksums.json has the SHA-256 of each member; without it the archive is incomplete.',
  difference:
    'This is a tar archive. The .qcow2 member has what changed since parent: put the .qcow2 members of the whole chain into one folder, then qemu-img convert -O raw <member> disk.raw. If files have other names: qemu-img rebase -u -F qcow2 -b <parent> <member>. checksums.json has the SHA-256 of each member; without it the archive is incomplete.',
};

export function encodeManifest(manifest: Manifest): Buffer {
  const { archive, name, volume, kind, point, parent, chain, created, layers, data } = manifest;
  const document = {
    format: FORMAT,
    version: FORMAT_VERSION,
    archive,
    name,
    kind,
    volume: { id: volume.id, name: volume.name, sizeBytes: volume.sizeBytes },
    point: { seq: point.seq, time: point.time },
    parent: parent === null ? null : { archive: parent.archive, name: parent.name, point: parent.point },
    chain,
    created,
    layers,
    data: { member: data.member, memberBytes: data.memberBytes },
    howToRead: HOW_TO_READ[kind],
  };
  return Buffer.from(`${JSON.stringify(document, null, 2)}\n`);
}

/** Fields that are not known are passed over: later Midmirrors may add some. Throws `foreign`, `version` or `damaged`. */
export function decodeManifest(bytes: Uint8Array): Manifest {
  const place = { section: MANIFEST_MEMBER };
  const read = new FieldReader(place, 'damaged');
  const fields = read.object(read.parse(bytes), 'the manifest');
  const format = read.field(fields, 'format');
  if (format !== FORMAT) throw tapeError('foreign', place, `its format is ${shown(format)}, not "${FORMAT}"`);
  const version = read.whole(fields, 'version', 1, Number.MAX_SAFE_INTEGER);
  if (version !== FORMAT_VERSION)
    throw tapeError(
      'version',
      place,
      `format version ${version}, and this Midmirror reads ${FORMAT_VERSION}`,
    );
  const { volume, point } = { volume: volumeOf(read, fields), point: pointOf(read, fields, 'point') };
  const archive = archiveIdOf(read, fields, 'archive');
  const kind = read.text(fields, 'kind', isKind, '"image" or "difference"') as ArchiveKind;
  const name = archiveName(volume.name, point.time, archive);
  const dataFields = read.object(read.field(fields, 'data'), 'data');
  const manifest: Manifest = {
    archive,
    name: read.text(fields, 'name', (text) => text === name, `"${name}"`),
    volume,
    kind,
    point,
    parent: kind === 'image' ? noParent(read, fields) : parentOf(read, fields),
    chain: chainOf(read, fields),
    created: read.text(fields, 'created', isTime, 'a time like 2026-11-27T10:00:00Z'),
    layers: layersOf(read, fields),
    data: {
      member: read.text(dataFields, 'member', (text) => text === dataMember(name), `"${dataMember(name)}"`),
      memberBytes: read.whole(dataFields, 'memberBytes', 1, Number.MAX_SAFE_INTEGER),
    },
  };
  checkLineage(read, manifest);
  return manifest;
}

/** Throws `damaged` naming the field. */
function checkLineage(read: FieldReader, { kind, archive, parent, chain, point }: Manifest): void {
  if (kind === 'image') {
    if (chain.length > 0) read.wrong('chain', chain, 'empty, as it is for an image');
    return;
  }
  if (chain[0] !== parent?.archive)
    read.wrong('chain', chain, `a list that begins with the parent, ${parent?.archive}`);
  if (new Set(chain).size !== chain.length || chain.includes(archive))
    read.wrong('chain', chain, 'a list where each archive stands once, and not this one');
  if (parent!.point.seq > point.seq)
    read.wrong('parent.point.seq', parent!.point.seq, `${point.seq}, the point, or one before`);
}

const isKind = (text: string): boolean => text === 'image' || text === 'difference';

function archiveIdOf(read: FieldReader, fields: Fields, name: string): string {
  return read.text(fields, name, isArchiveId, 'an archive id: lower-case letters, digits and dashes');
}

function volumeOf(read: FieldReader, all: Fields): TapeVolume {
  const fields = read.object(read.field(all, 'volume'), 'volume');
  const isId = (text: string): boolean => /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(text);
  const sizeBytes = read.whole(fields, 'sizeBytes', 512, limits.volumeBytesMax);
  if (sizeBytes % 512 !== 0) read.wrong('sizeBytes', sizeBytes, 'a multiple of 512');
  return {
    id: read.text(fields, 'id', isId, "a volume's id"),
    name: read.text(fields, 'name', isVolumeName, "a volume's name"),
    sizeBytes,
  };
}

function pointOf(read: FieldReader, all: Fields, name: string): TapePoint {
  const fields = read.object(read.field(all, name), name);
  return {
    seq: read.whole(fields, 'seq', 0, Number.MAX_SAFE_INTEGER),
    time: read.text(fields, 'time', isTime, 'a time like 2026-11-27T10:00:00Z'),
  };
}

function noParent(read: FieldReader, all: Fields): null {
  const value = read.field(all, 'parent');
  if (value !== null) read.wrong('parent', value, 'null, as it is for an image');
  return null;
}

function parentOf(read: FieldReader, all: Fields): TapeParent {
  const fields = read.object(read.field(all, 'parent'), 'parent');
  const archive = archiveIdOf(read, fields, 'archive');
  const isName = (text: string): boolean => isArchiveName(text, archive);
  return {
    archive,
    name: read.text(fields, 'name', isName, `an archive's name that ends in ${archive}`),
    point: pointOf(read, fields, 'point'),
  };
}

function chainOf(read: FieldReader, all: Fields): string[] {
  return read.list(all, 'chain', limits.chainMax).map((id) => {
    if (typeof id !== 'string' || !isArchiveId(id)) read.wrong('chain', id, 'a list of archive ids');
    return id as string;
  });
}

function layersOf(read: FieldReader, all: Fields): LayerName[] {
  const layers = read.list(all, 'layers', 2) as LayerName[];
  if (!['', 'zstd', 'age', 'zstd,age'].includes(layers.join(',')))
    read.wrong('layers', layers, '[], ["zstd"], ["age"] or ["zstd", "age"]');
  return [...layers];
}
