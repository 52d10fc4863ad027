// CRC-32 (IEEE 802.3), the checksum of every record and object (I8).
import { crc32 } from '@node-rs/crc32';

/** Continues from `seed`, so pieces can be summed one after the other. */
export function checksum(bytes: Uint8Array, seed = 0): number {
  return crc32(bytes, seed);
}

/** The checksum of `length` bytes from `offset` on. */
export function checksumOf(bytes: Uint8Array, offset: number, length: number): number {
  return crc32(bytes.subarray(offset, offset + length));
}
