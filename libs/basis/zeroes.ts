// Bytes that are zero.

const ZEROES = Buffer.alloc(64 << 10);

export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROES.length) {
    const count = Math.min(ZEROES.length, bytes.length - at);
    if (ZEROES.compare(bytes, at, at + count, 0, count) !== 0) return false;
  }
  return true;
}
