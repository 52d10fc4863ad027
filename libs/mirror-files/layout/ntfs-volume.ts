// Label and state of an NTFS: they are in a file of the file system, $Volume, the fourth record of its table of files.
// Source: the NTFS documentation of the Linux-NTFS project, "$Volume", "$VOLUME_NAME", "$VOLUME_INFORMATION".
import type { ReadBytes } from './partition-table.ts';

const VOLUME_RECORD = 3;
const RECORD_BYTES_MAX = 64 << 10;
const Attribute = { volumeName: 0x60, volumeInformation: 0x70, end: 0xffffffff } as const;
const DIRTY = 1;

export interface NtfsVolume {
  label: string | null;
  /** It was not unmounted; null: not told. */
  unclean: boolean | null;
}

/** `boot`: the first sector. Where the record is not where it should be, nothing is told. */
export async function readNtfsVolume(
  boot: Buffer,
  read: ReadBytes,
  startBytes: number,
  sizeBytes: number,
): Promise<NtfsVolume> {
  const nothing: NtfsVolume = { label: null, unclean: null };
  const clusterBytes = boot.readUInt16LE(11) * scaled(boot.readInt8(13));
  const perRecord = boot.readInt8(64);
  const recordBytes = perRecord < 0 ? 2 ** -perRecord : perRecord * clusterBytes;
  const at = Number(boot.readBigUInt64LE(48)) * clusterBytes + VOLUME_RECORD * recordBytes;
  const isSane = recordBytes >= 512 && recordBytes <= RECORD_BYTES_MAX && Number.isSafeInteger(at);
  if (!isSane || at + recordBytes > sizeBytes) return nothing;
  const record = await read(startBytes + at, recordBytes);
  return record.toString('latin1', 0, 4) === 'FILE' ? volumeOf(record) : nothing;
}

/** Over 128 it is a power of two, negated. */
function scaled(value: number): number {
  return value < 0 ? 2 ** -value : value;
}

function volumeOf(record: Buffer): NtfsVolume {
  const volume: NtfsVolume = { label: null, unclean: null };
  for (let at = record.readUInt16LE(20); at + 24 <= record.length; ) {
    const [type, length] = [record.readUInt32LE(at), record.readUInt32LE(at + 4)];
    if (type === Attribute.end || length < 24) break;
    const isResident = record[at + 8] === 0;
    const from = at + record.readUInt16LE(at + 20);
    const to = from + record.readUInt32LE(at + 16);
    if (isResident && to <= record.length) {
      const value = record.subarray(from, to);
      if (type === Attribute.volumeName && value.length > 0) volume.label = value.toString('utf16le');
      if (type === Attribute.volumeInformation && value.length >= 12)
        volume.unclean = (value.readUInt16LE(10) & DIRTY) !== 0;
    }
    at += length;
  }
  return volume;
}
