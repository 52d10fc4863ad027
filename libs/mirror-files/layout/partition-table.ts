// GPT (UEFI specification, chapter 5) and MBR with logical partitions. Pure but for the function that reads. Whatever
// is in them is taken for somebody else's: checked, bounded, never trusted.
import { crc32 } from 'node:zlib';
import { limits } from '../limits.ts';

/** Bytes of the disk; within it. */
export type ReadBytes = (startBytes: number, lengthBytes: number) => Promise<Buffer>;

export interface Partition {
  /** As Linux counts: logical ones of an MBR from 5 on. */
  number: number;
  startBytes: number;
  sizeBytes: number;
  name: string | null;
}

export interface PartitionTable {
  kind: 'none' | 'mbr' | 'gpt';
  partitions: Partition[];
  notes: string[];
}

const SECTOR = 512;
const GPT_SECTORS = [512, 4096];
const PROTECTIVE = 0xee;
const EXTENDED = new Set([0x05, 0x0f, 0x85]);

export async function readPartitionTable(read: ReadBytes, sizeBytes: number): Promise<PartitionTable> {
  const none: PartitionTable = { kind: 'none', partitions: [], notes: [] };
  if (sizeBytes < 4 * SECTOR) return none;
  const first = await read(0, SECTOR);
  const signed = first.readUInt16LE(510) === 0xaa55;
  const entries = signed && !isBootSector(first) ? mbrEntries(first) : null;
  const gpt = await readGpt(read, sizeBytes);
  if (gpt !== null && (gpt.notes.length === 0 || entries?.some(({ type }) => type === PROTECTIVE)))
    return gpt;
  if (entries === null || entries.length === 0) return none;
  if (entries.some(({ type }) => type === PROTECTIVE))
    return { ...none, notes: ['its partition table (GPT) is damaged, and so is the copy at its end'] };
  return await readMbr(read, sizeBytes, entries);
}

interface MbrEntry {
  number: number;
  type: number;
  startBytes: number;
  sizeBytes: number;
}

/** FAT and NTFS begin with a sector that is signed like an MBR. */
function isBootSector(sector: Buffer): boolean {
  const jump = sector[0] === 0xeb || sector[0] === 0xe9;
  const bytesPerSector = sector.readUInt16LE(11);
  const text = sector.toString('latin1');
  const named = text.startsWith('NTFS    ', 3) || text.startsWith('EXFAT   ', 3);
  const fat = text.startsWith('FAT', 54) || text.startsWith('FAT', 82);
  return jump && (named || (fat && bytesPerSector >= 512));
}

/** Null: the bytes are no table. */
function mbrEntries(sector: Buffer): MbrEntry[] | null {
  const entries: MbrEntry[] = [];
  for (let i = 0; i < 4; i += 1) {
    const at = 446 + 16 * i;
    const status = sector[at]!;
    if (status !== 0 && status !== 0x80) return null;
    const type = sector[at + 4]!;
    const startBytes = sector.readUInt32LE(at + 8) * SECTOR;
    const sizeBytes = sector.readUInt32LE(at + 12) * SECTOR;
    if (type !== 0 && sizeBytes > 0) entries.push({ number: i + 1, type, startBytes, sizeBytes });
  }
  return entries;
}

async function readMbr(
  read: ReadBytes,
  diskBytes: number,
  entries: readonly MbrEntry[],
): Promise<PartitionTable> {
  const found = new Found('mbr', diskBytes);
  for (const { number, type, startBytes, sizeBytes } of entries) {
    if (!EXTENDED.has(type)) found.add({ number, startBytes, sizeBytes, name: null });
    else await readLogical(read, diskBytes, startBytes, found);
  }
  return found;
}

/** A chain of sectors, each with one partition and where the next one is, counted from the start of the whole. */
async function readLogical(
  read: ReadBytes,
  diskBytes: number,
  extended: number,
  found: Found,
): Promise<void> {
  const seen = new Set<number>();
  let number = 5;
  for (let at = extended; at + SECTOR <= diskBytes; ) {
    if (seen.has(at) || seen.size === limits.logicalPartitionsMax)
      return void found.notes.push('its chain of logical partitions does not end');
    seen.add(at);
    const sector = await read(at, SECTOR);
    const entries = sector.readUInt16LE(510) === 0xaa55 ? mbrEntries(sector) : null;
    if (entries === null) return void found.notes.push('its chain of logical partitions is damaged');
    const own = entries.find(({ type }) => !EXTENDED.has(type));
    if (own !== undefined) {
      found.add({ number, startBytes: at + own.startBytes, sizeBytes: own.sizeBytes, name: null });
      number += 1;
    }
    const next = entries.find(({ type }) => EXTENDED.has(type));
    if (next === undefined) return;
    at = extended + next.startBytes;
  }
}

class Found implements PartitionTable {
  readonly partitions: Partition[] = [];
  readonly notes: string[] = [];
  readonly kind: 'mbr' | 'gpt';
  readonly #diskBytes: number;

  constructor(kind: 'mbr' | 'gpt', diskBytes: number) {
    this.kind = kind;
    this.#diskBytes = diskBytes;
  }

  /** What reaches beyond the disk's end is cut there: the rest of it may be whole. */
  add(partition: Partition): void {
    const { number, startBytes, sizeBytes } = partition;
    const within = Math.min(sizeBytes, this.#diskBytes - startBytes);
    if (within < sizeBytes) this.notes.push(`partition ${number} reaches beyond the end of the disk`);
    if (within > 0) this.partitions.push({ ...partition, sizeBytes: within });
  }
}

async function readGpt(read: ReadBytes, diskBytes: number): Promise<PartitionTable | null> {
  for (const sectorBytes of GPT_SECTORS) {
    const last = Math.floor(diskBytes / sectorBytes) - 1;
    if (last < 2) continue;
    const primary = await readGptAt(read, diskBytes, sectorBytes, 1);
    if (primary !== null) return primary;
    const backup = await readGptAt(read, diskBytes, sectorBytes, last);
    if (backup === null) continue;
    backup.notes.push('the partition table (GPT) at its start is damaged; the copy at its end is used');
    return backup;
  }
  return null;
}

async function readGptAt(
  read: ReadBytes,
  diskBytes: number,
  sectorBytes: number,
  sector: number,
): Promise<Found | null> {
  const header = await read(sector * sectorBytes, SECTOR);
  if (header.toString('latin1', 0, 8) !== 'EFI PART') return null;
  const headerBytes = header.readUInt32LE(12);
  if (headerBytes < 92 || headerBytes > SECTOR) return null;
  const own = Buffer.from(header.subarray(0, headerBytes));
  const checksum = own.readUInt32LE(16);
  own.writeUInt32LE(0, 16);
  if (crc32(own) !== checksum || Number(header.readBigUInt64LE(24)) !== sector) return null;
  const entriesAt = Number(header.readBigUInt64LE(72)) * sectorBytes;
  const count = header.readUInt32LE(80);
  const entryBytes = header.readUInt32LE(84);
  if (count > limits.partitionsMax || entryBytes < 128 || entryBytes > 4096 || entryBytes % 8 !== 0)
    return null;
  // Whole sectors are read; the checksum is of the entries alone.
  const lengthBytes = Math.ceil((count * entryBytes) / sectorBytes) * sectorBytes;
  if (!Number.isSafeInteger(entriesAt) || entriesAt + lengthBytes > diskBytes || lengthBytes === 0)
    return null;
  const entries = (await read(entriesAt, lengthBytes)).subarray(0, count * entryBytes);
  if (crc32(entries) !== header.readUInt32LE(88)) return null;
  const found = new Found('gpt', diskBytes);
  for (let i = 0; i < count; i += 1) {
    const entry = entries.subarray(i * entryBytes, (i + 1) * entryBytes);
    if (entry.subarray(0, 16).every((byte) => byte === 0)) continue;
    const startBytes = Number(entry.readBigUInt64LE(32)) * sectorBytes;
    const endBytes = (Number(entry.readBigUInt64LE(40)) + 1) * sectorBytes;
    const name = entry.toString('utf16le', 56, 128).split('\0', 1)[0]!;
    found.add({
      number: i + 1,
      startBytes,
      sizeBytes: endBytes - startBytes,
      name: name === '' ? null : name,
    });
  }
  return found;
}
