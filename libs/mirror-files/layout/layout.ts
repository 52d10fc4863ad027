// What is on a disk: one file system over all of it, or a partition table and a file system in each partition.
import { MidmirrorError, printBytes } from '@midmirror/basis';
import { limits } from '../limits.ts';
import { printName } from '../names.ts';
import { readNtfsVolume } from './ntfs-volume.ts';
import { readPartitionTable, type ReadBytes } from './partition-table.ts';
import { identify } from './superblocks.ts';
import { isXfsUnclean } from './xfs-log.ts';

export type TableKind = 'none' | 'mbr' | 'gpt';

export type FileSystemKind =
  | 'ext2'
  | 'ext3'
  | 'ext4'
  | 'xfs'
  | 'btrfs'
  | 'vfat'
  | 'exfat'
  | 'ntfs'
  | 'iso9660'
  | 'squashfs'
  | 'f2fs'
  | 'erofs';

export type OtherKind = 'swap' | 'lvm' | 'luks' | 'bitlocker' | 'mdraid' | 'ext-journal' | 'unknown';

interface Part {
  /** Of the partition; 0: the whole disk. */
  number: number;
  label: string | null;
  uuid: string | null;
  startBytes: number;
  /** Of the partition, or of the whole disk. */
  sizeBytes: number;
}

export interface FileSystem extends Part {
  kind: FileSystemKind;
  /** Its journal held changes that were not yet in place: it was being written. Null: it does not tell cheaply. */
  unclean: boolean | null;
}

export interface OtherPart extends Part {
  kind: OtherKind;
}

export interface Layout {
  table: TableKind;
  fileSystems: FileSystem[];
  others: OtherPart[];
  notes: string[];
}

/** Reads a few sectors of the disk and the first 68 KiB of each partition. */
export async function readLayout(read: ReadBytes, sizeBytes: number): Promise<Layout> {
  const layout: Layout = { table: 'none', fileSystems: [], others: [], notes: [] };
  const add = async (
    number: number,
    startBytes: number,
    length: number,
    name: string | null,
  ): Promise<void> => {
    const part = { number, startBytes, sizeBytes: length };
    const first = await read(startBytes, Math.min(length, limits.superblockBytes));
    const found = identify(first);
    if (found === null) {
      // A disk with a table is no file system as a whole; that is nothing to tell.
      if (number > 0 || layout.table === 'none')
        layout.others.push({ ...part, kind: 'unknown', label: name, uuid: null });
      return;
    }
    if (found.holds === 'files' && found.kind === 'ntfs')
      Object.assign(found, await readNtfsVolume(first, read, startBytes, length));
    if (found.holds === 'files' && found.kind === 'xfs')
      found.unclean = await isXfsUnclean(first, read, startBytes, length);
    const { holds, label, uuid } = found;
    const known = { ...part, label: label ?? name, uuid };
    if (holds === 'files') layout.fileSystems.push({ ...known, kind: found.kind, unclean: found.unclean });
    else layout.others.push({ ...known, kind: found.kind });
  };
  const table = await readPartitionTable(read, sizeBytes);
  layout.table = table.kind;
  layout.notes.push(...table.notes);
  // A GPT lies where file systems have their superblock. An MBR leaves that of an older file system as it is.
  if (table.kind !== 'gpt') await add(0, 0, sizeBytes, null);
  for (const { number, startBytes, sizeBytes: length, name } of table.partitions)
    await add(number, startBytes, length, name);
  return layout;
}

/** The one that a person means. Throws `not-found`, or `bad-request` with the list to choose from. */
export function chooseFileSystem({ fileSystems, others, notes }: Layout, number?: number): FileSystem {
  const list = fileSystems.map(printFileSystem).join('\n  ');
  if (number !== undefined) {
    const found = fileSystems.find((each) => each.number === number);
    if (found !== undefined) return found;
    const other = others.find((each) => each.number === number);
    const why = other === undefined ? 'there is no such partition' : `it holds ${OTHER_WORDS[other.kind]}`;
    throw new MidmirrorError('not-found', `partition ${number} has no file system that can be read: ${why}`, {
      ...(list === '' ? {} : { hint: `there are\n  ${list}` }),
    });
  }
  if (fileSystems.length === 1) return fileSystems[0]!;
  if (fileSystems.length > 1)
    throw new MidmirrorError('bad-request', 'several file systems are on the disk; say which one', {
      hint: `by its number:\n  ${list}`,
    });
  const what = [
    ...notes,
    ...others.map(
      (each) =>
        `${each.number === 0 ? 'the whole disk' : `partition ${each.number}`} holds ${OTHER_WORDS[each.kind]}`,
    ),
  ].join('; ');
  throw new MidmirrorError('not-found', `no file system is found on the disk: ${what}`, {
    hint: 'was there one at this point? Look at another point, or at the bytes with `mim read`',
  });
}

export function printFileSystem({ number, kind, label, sizeBytes }: FileSystem): string {
  const where = number === 0 ? 'the whole disk (0)' : `partition ${number}`;
  return `${where}: ${kind}, ${printBytes(sizeBytes)}${label === null ? '' : `, "${printName(label)}"`}`;
}

export const OTHER_WORDS: Readonly<Record<OtherKind, string>> = {
  swap: 'swap space',
  lvm: 'a physical volume of LVM, which is not looked into',
  luks: 'an encrypted volume (LUKS)',
  bitlocker: 'an encrypted volume (BitLocker)',
  mdraid: 'a member of a RAID (md), which is not looked into',
  'ext-journal': 'the journal of an ext file system that lies elsewhere',
  unknown: 'nothing that is known',
};
