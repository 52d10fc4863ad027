// Which file system the first bytes of a partition belong to, with its label and UUID, as blkid tells them. Pure.
import type { FileSystemKind, OtherKind } from './layout.ts';

export type Identified =
  | {
      holds: 'files';
      kind: FileSystemKind;
      label: string | null;
      uuid: string | null;
      unclean: boolean | null;
    }
  | { holds: 'other'; kind: OtherKind; label: string | null; uuid: string | null };

type Probe = (bytes: Buffer) => Identified | null;

/** `bytes`: the first 68 KiB, or what there is of it. Null: nothing that is known. */
export function identify(bytes: Buffer): Identified | null {
  for (const probe of PROBES) {
    const found = probe(bytes);
    if (found !== null) return found;
  }
  return null;
}

const other = (kind: OtherKind, uuid: string | null = null, label: string | null = null): Identified => ({
  holds: 'other',
  kind,
  label,
  uuid,
});

function files(
  kind: FileSystemKind,
  facts: { label?: string | null; uuid?: string | null; unclean?: boolean | null } = {},
): Identified {
  return { holds: 'files', kind, label: null, uuid: null, unclean: null, ...facts };
}

/** What wraps others comes first: an encrypted volume may look like anything inside. */
const PROBES: readonly Probe[] = [
  luks,
  lvm,
  mdraid,
  bitlocker,
  xfs,
  squashfs,
  ntfs,
  exfat,
  vfat,
  ext,
  btrfs,
  f2fs,
  erofs,
  iso9660,
  swap,
];

function luks(bytes: Buffer): Identified | null {
  if (!isAt(bytes, 0, 'LUKS\u00ba\u00be')) return null;
  return other('luks', bytes.length >= 208 ? textAt(bytes, 168, 40) : null);
}

function lvm(bytes: Buffer): Identified | null {
  for (let at = 0; at < 4 * 512; at += 512)
    if (isAt(bytes, at, 'LABELONE') && isAt(bytes, at + 24, 'LVM2 001')) return other('lvm');
  return null;
}

/** Metadata 1.1 and 1.2; that of 0.90 and 1.0 lies at the end, where the file system is whole without it. */
function mdraid(bytes: Buffer): Identified | null {
  for (const at of [0, 4096])
    if (bytes.length >= at + 256 && bytes.readUInt32LE(at) === 0xa92b4efc && bytes.readUInt32LE(at + 4) === 1)
      return other('mdraid', uuidAt(bytes, at + 16));
  return null;
}

function bitlocker(bytes: Buffer): Identified | null {
  return isAt(bytes, 3, '-FVE-FS-') ? other('bitlocker') : null;
}

function xfs(bytes: Buffer): Identified | null {
  if (!isAt(bytes, 0, 'XFSB') || bytes.length < 512) return null;
  return files('xfs', { uuid: uuidAt(bytes, 32), label: textAt(bytes, 108, 12) });
}

function squashfs(bytes: Buffer): Identified | null {
  return isAt(bytes, 0, 'hsqs') ? files('squashfs', { unclean: false }) : null;
}

function ntfs(bytes: Buffer): Identified | null {
  if (!isAt(bytes, 3, 'NTFS    ') || bytes.length < 512) return null;
  const serial = bytes.readBigUInt64LE(72).toString(16).toUpperCase().padStart(16, '0');
  return files('ntfs', { uuid: serial });
}

function exfat(bytes: Buffer): Identified | null {
  if (!isAt(bytes, 3, 'EXFAT   ') || bytes.length < 512) return null;
  return files('exfat', { uuid: fatSerial(bytes, 100), unclean: (bytes.readUInt16LE(106) & 2) !== 0 });
}

function vfat(bytes: Buffer): Identified | null {
  if (bytes.length < 512 || bytes.readUInt16LE(510) !== 0xaa55) return null;
  const wide = isAt(bytes, 82, 'FAT32   ');
  const narrow = ['FAT12   ', 'FAT16   ', 'FAT     '].some((name) => isAt(bytes, 54, name));
  if (!wide && !narrow) return null;
  const sectorBytes = bytes.readUInt16LE(11);
  const isPower = (n: number): boolean => n > 0 && (n & (n - 1)) === 0;
  if (!isPower(sectorBytes) || sectorBytes < 512 || sectorBytes > 4096 || !isPower(bytes[13]!)) return null;
  const at = wide ? 64 : 36;
  const label = textAt(bytes, at + 7, 11);
  return files('vfat', {
    uuid: fatSerial(bytes, at + 3),
    label: label === 'NO NAME' ? null : label,
    unclean: (bytes[at + 1]! & 1) !== 0,
  });
}

function fatSerial(bytes: Buffer, at: number): string {
  const hex = bytes.readUInt32LE(at).toString(16).toUpperCase().padStart(8, '0');
  return `${hex.slice(0, 4)}-${hex.slice(4)}`;
}

const Ext = {
  compatJournal: 0x4,
  /** Changes in the journal are not in place yet. */
  incompatRecover: 0x4,
  incompatJournalDevice: 0x8,
  /** What ext3 knows: file types, recovery, meta block groups; sparse superblocks, large files, trees. */
  incompatOfExt3: 0x2 | 0x4 | 0x10,
  readOnlyOfExt3: 0x1 | 0x2 | 0x4,
} as const;

function ext(bytes: Buffer): Identified | null {
  const at = 1024;
  if (bytes.length < at + 1024 || bytes.readUInt16LE(at + 0x38) !== 0xef53) return null;
  const [compat, incompat, readOnly] = [0x5c, 0x60, 0x64].map((offset) =>
    bytes.readUInt32LE(at + offset),
  ) as [number, number, number];
  const uuid = uuidAt(bytes, at + 0x68);
  const label = textAt(bytes, at + 0x78, 16);
  if ((incompat & Ext.incompatJournalDevice) !== 0) return other('ext-journal', uuid, label);
  const isExt4 = (incompat & ~Ext.incompatOfExt3) !== 0 || (readOnly & ~Ext.readOnlyOfExt3) !== 0;
  const kind = isExt4 ? 'ext4' : (compat & Ext.compatJournal) !== 0 ? 'ext3' : 'ext2';
  return files(kind, { uuid, label, unclean: (incompat & Ext.incompatRecover) !== 0 });
}

function btrfs(bytes: Buffer): Identified | null {
  const at = 65_536;
  if (!isAt(bytes, at + 0x40, '_BHRfS_M') || bytes.length < at + 0x22b) return null;
  return files('btrfs', {
    uuid: uuidAt(bytes, at + 0x20),
    label: textAt(bytes, at + 0x12b, 256),
    unclean: bytes.readBigUInt64LE(at + 0x60) !== 0n,
  });
}

function f2fs(bytes: Buffer): Identified | null {
  if (bytes.length < 1024 + 0x7c || bytes.readUInt32LE(1024) !== 0xf2f52010) return null;
  return files('f2fs', { uuid: uuidAt(bytes, 1024 + 0x6c) });
}

function erofs(bytes: Buffer): Identified | null {
  if (bytes.length < 1024 + 0x50 || bytes.readUInt32LE(1024) !== 0xe0f5e1e2) return null;
  return files('erofs', {
    uuid: uuidAt(bytes, 1024 + 0x30),
    label: textAt(bytes, 1024 + 0x40, 16),
    unclean: false,
  });
}

function iso9660(bytes: Buffer): Identified | null {
  if (!isAt(bytes, 32_769, 'CD001')) return null;
  return files('iso9660', { label: textAt(bytes, 32_808, 32), unclean: false });
}

function swap(bytes: Buffer): Identified | null {
  for (const page of [4096, 8192, 16_384, 65_536])
    if (isAt(bytes, page - 10, 'SWAPSPACE2'))
      return other('swap', uuidAt(bytes, 1036), textAt(bytes, 1052, 16));
  return null;
}

function isAt(bytes: Buffer, at: number, text: string): boolean {
  return bytes.length >= at + text.length && bytes.toString('latin1', at, at + text.length) === text;
}

/** Up to the first zero, without blanks at the end; null when there is nothing. */
function textAt(bytes: Buffer, at: number, length: number): string | null {
  const field = bytes.subarray(at, at + length);
  const end = field.indexOf(0);
  const text = field.toString('utf8', 0, end === -1 ? length : end).trimEnd();
  return text === '' ? null : text;
}

function uuidAt(bytes: Buffer, at: number): string {
  const hex = bytes.toString('hex', at, at + 16);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
