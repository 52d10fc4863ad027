// Which blocks of a range differ, and how those are put as ranges.

export const DIGEST_BYTES = 32;

/** Runs of blocks for which `differs` holds: their starts and lengths. The last block may be shorter. */
export function* runsOf(
  lengthBytes: number,
  blockBytes: number,
  differs: (block: number) => boolean,
): Generator<{ startBytes: number; lengthBytes: number }> {
  const blocks = Math.ceil(lengthBytes / blockBytes);
  for (let from = 0; from < blocks; ) {
    if (!differs(from)) {
      from += 1;
      continue;
    }
    let to = from + 1;
    while (to < blocks && differs(to)) to += 1;
    yield {
      startBytes: from * blockBytes,
      lengthBytes: Math.min(to * blockBytes, lengthBytes) - from * blockBytes,
    };
    from = to;
  }
}

const ZEROES = Buffer.alloc(64 << 10);

export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROES.length) {
    const count = Math.min(ZEROES.length, bytes.length - at);
    if (ZEROES.compare(bytes, at, at + count, 0, count) !== 0) return false;
  }
  return true;
}

export function sameAt(one: Uint8Array, other: Uint8Array, from: number, to: number): boolean {
  return Buffer.compare(one.subarray(from, to), other.subarray(from, to)) === 0;
}
