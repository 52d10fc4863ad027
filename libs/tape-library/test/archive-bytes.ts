// Bytes for archives, and back.
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { SeededRandom } from '@midmirror/basis';

export function bytesOf(seed: number, length: number): Buffer {
  const random = new SeededRandom(seed);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE(random.below(2 ** 32), at);
  return bytes;
}

export async function* piecesOf(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

export async function gather(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** In memory where there is such a place: these tests sync files thousands of times. */
export function quickDirectory(): string {
  return existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
}
