// What the service asks of its tape process, and what that answers: JSON over the channel that Node gives a forked
// child. The tape process has one library; bytes of guests and checksums never touch the service's thread.
import type { MemberChecksum, TapePoint, TapeVolume, TapeParent } from '@midmirror/tape-format';
import type { ArchiveLabel, Cartridge, Part, PartPlace } from '@midmirror/tape-library';

/** An archive that is to be written. */
export interface WriteOrder {
  archive: string;
  volume: TapeVolume;
  point: TapePoint;
  /** Null: an image. */
  parent: (TapeParent & { chain: readonly string[] }) | null;
  /** RFC 3339, UTC. */
  created: string;
  zstdLevel: number | null;
  /** Of age; none: not encrypted. */
  recipients: readonly string[];
  /** Of the point, `nbd://host/volume@seq:1234`. It is held by the connections to it. */
  uri: string;
  /** Only these cartridges, in this order; null: any. */
  barcodes: readonly string[] | null;
  /** That the catalogue has in this library. One that is empty nevertheless is not the one that it was. */
  archivesThere: number;
}

export interface PlannedArchive {
  name: string;
  dataBytes: number;
  zeroBytes: number;
  tarBytes: number;
  /** Null: nothing to read. */
  bytesPerSecond: number | null;
  cartridges: { barcode: string; bytes: number; isNew: boolean }[];
  lackingBytes: number;
}

export interface WrittenArchive {
  name: string;
  layers: readonly string[];
  parts: readonly Part[];
  bytes: number;
  sha256: string;
  members: readonly MemberChecksum[];
}

export interface VerifyOrder {
  label: Pick<ArchiveLabel, 'archiveId' | 'name' | 'layers'>;
  parts: readonly PartPlace[];
  /** Of all bytes; null: not known. */
  sha256: string | null;
  /** Of the point, to compare with; null: it is not on disk any more. */
  uri: string | null;
}

export interface VerifiedArchive {
  bytes: number;
  sha256: string;
  /** Null: encrypted for a key that this appliance lacks, so only the bytes as they lie on the media were checked. */
  members: readonly MemberChecksum[] | null;
  compared: boolean;
}

export interface TapeCalls {
  list: { ask: Record<string, never>; answer: { cartridges: Cartridge[] } };
  add: { ask: { barcode: string; capacityBytes: number; overwriteForeign: boolean }; answer: null };
  erase: { ask: { part: PartPlace }; answer: null };
  protect: { ask: { barcode: string; writeProtected: boolean }; answer: null };
  eject: { ask: { barcode: string; vaultPlace: string }; answer: null };
  import: { ask: { barcode: string }; answer: { cartridge: Cartridge } };
  plan: { ask: WriteOrder; answer: PlannedArchive };
  write: { ask: WriteOrder; answer: WrittenArchive };
  verify: { ask: VerifyOrder; answer: VerifiedArchive };
  /** Of an archive on the shelf; reads no more than it needs to. */
  manifest: {
    ask: { label: Pick<ArchiveLabel, 'archiveId' | 'name' | 'layers'>; parts: readonly PartPlace[] };
    answer: { manifest: import('@midmirror/tape-format').Manifest };
  };
  /** Waits for one connection that sends the token and a line feed, and gives it frames (`framed` of @midmirror/api). */
  serve: { ask: { parts: readonly PartPlace[] }; answer: { host: string; port: number; token: string } };
}

export type TapeCall = keyof TapeCalls;

export interface TapeProgress {
  phase: 'planning' | 'writing' | 'reading' | 'comparing';
  bytesDone: number;
  bytesTotal: number;
  barcode: string | null;
}
