// File systems as their own programs make them, spoilt ones, and fsck on a disk in memory: for its tests.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ProbeResult } from './probe.ts';
import type { noIsolation } from '../runner/isolation.ts';
import { probing } from './moment.ts';
import { imageOf, MemoryDisk, serving } from './recorded-disk.ts';

export const MIB = 2 ** 20;
export const FORMATS = {
  ext4: { mkfs: ['mkfs.ext4', '-q', '-b', '1024'], sizeBytes: 24 * MIB },
  xfs: { mkfs: ['mkfs.xfs', '-q'], sizeBytes: 320 * MIB },
  btrfs: { mkfs: ['mkfs.btrfs', '-q'], sizeBytes: 112 * MIB },
  vfat: { mkfs: ['mkfs.vfat', '-F', '32'], sizeBytes: 40 * MIB },
} as const;

export function checkDisk(
  folder: string,
  bytes: Buffer,
  {
    settings = {},
    writable = true,
    isolation,
  }: { settings?: object; writable?: boolean; isolation?: typeof noIsolation } = {},
): Promise<ProbeResult> {
  return serving(folder, new MemoryDisk(bytes), (uri) =>
    probing('fsck', settings, { mirror: { uri, writable } }, folder, isolation),
  );
}

export function formatted(folder: string, type: keyof typeof FORMATS): Buffer {
  const path = `${folder}/${type}.img`;
  imageOf(path, FORMATS[type].sizeBytes, FORMATS[type].mkfs);
  return readFileSync(path);
}

/** Spoils all that is not zero in the first megabyte, but for the superblock. */
export function spoiled(bytes: Buffer, type: keyof typeof FORMATS): Buffer {
  const copy = Buffer.from(bytes);
  if (type === 'vfat') {
    // The second FAT no longer says what the first does, and both name clusters that there are not.
    const fat = copy.readUInt16LE(14) * copy.readUInt16LE(11);
    randomBytes(2048).copy(copy, fat + 512);
    return copy;
  }
  // btrfs: one tree block wherever it is, both its copies. Others: inodes and what leads to them.
  const [from, to] = type === 'btrfs' ? [MIB, copy.length] : [type === 'xfs' ? 2 * 4096 : 16_384, MIB];
  for (let at = from; at < to; at += 512) {
    const sector = copy.subarray(at, at + 512);
    const superblock = type === 'btrfs' && copy.toString('latin1', at + 64, at + 72) === '_BHRfS_M';
    if (!superblock && sector.some((byte) => byte !== 0))
      for (let i = 100; i < 200; i += 1) sector[i]! ^= 0x5a;
  }
  return copy;
}
