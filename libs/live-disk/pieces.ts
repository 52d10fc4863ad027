// How a write becomes descriptors: pieces of bounded length that each have a checksum.
import type { WriteCommand } from '@midmirror/block-device';
import {
  type BatchBuilder,
  checksum,
  DescriptorFlag,
  DescriptorKind,
  Format,
  PIECE_BYTES_MAX,
} from '@midmirror/journal';

/** Whether a write is one piece. */
export function fitsPiece(start: number, length: number): boolean {
  return (start % PIECE_BYTES_MAX) + length <= PIECE_BYTES_MAX;
}

/** Pieces end at multiples of their size, so that writing a range again replaces the same pieces. */
export function piecesOf(start: number, length: number): number {
  return Math.floor((start + length - 1) / PIECE_BYTES_MAX) - Math.floor(start / PIECE_BYTES_MAX) + 1;
}

/** Adds the write's descriptors to the batch and its data to the list of what is written. */
export function addPieces(
  builder: BatchBuilder,
  iovec: Uint8Array[],
  command: WriteCommand,
  dataOffset: number,
): void {
  const end = command.startBytes + command.lengthBytes;
  let at = command.startBytes;
  let slice = 0;
  let within = 0;
  let flags = 0;
  while (at < end) {
    const length = Math.min(end - at, PIECE_BYTES_MAX - (at % PIECE_BYTES_MAX));
    let crc = 0;
    for (let left = length; left > 0; ) {
      const bytes = command.payload[slice]!;
      const count = Math.min(left, bytes.length - within);
      crc = checksum(bytes.subarray(within, within + count), crc);
      left -= count;
      within += count;
      if (within === bytes.length) {
        slice += 1;
        within = 0;
      }
    }
    builder.add(DescriptorKind.write, flags, crc, at, length, dataOffset + at - command.startBytes);
    flags = DescriptorFlag.continues;
    at += length;
  }
  for (let i = 0; i < command.payloadCount; i += 1) iovec.push(command.payload[i]!);
}

/** What a batch of so many descriptors takes of a segment beside its data, its part of the footer included. */
export function spaceFor(descriptors: number): number {
  // Beside its header and descriptors in the batch, each descriptor may need two extents in the footer.
  return Format.batchHeaderBytes + descriptors * (Format.descriptorBytes + 2 * Format.extentBytes);
}
