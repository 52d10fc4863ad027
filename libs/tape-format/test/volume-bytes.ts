// Bytes of a volume that need no memory: each sector tells its own address and the version it was written in.

const SECTOR = 512;

/** Of the volume as whole sectors. */
export function sectorBytes(startBytes: number, lengthBytes: number, version: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  for (let at = 0; at < lengthBytes; at += SECTOR) {
    bytes.writeDoubleBE(startBytes + at + 1, at);
    bytes.writeUInt32BE(version, at + 8);
    bytes[at + SECTOR - 1] = (startBytes / SECTOR + at / SECTOR + version) % 256;
  }
  return bytes;
}

export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

/** `bytes` in chunks of a size that fits nothing. */
export async function* chunked(
  bytes: Uint8Array,
  chunkBytes = 10_007,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}
