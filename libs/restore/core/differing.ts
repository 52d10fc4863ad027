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

export function sameAt(one: Uint8Array, other: Uint8Array, from: number, to: number): boolean {
  return Buffer.compare(one.subarray(from, to), other.subarray(from, to)) === 0;
}
