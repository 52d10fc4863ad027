// A chunk of the target against the point: holes by reading the target, data by digests of both sides, or where the
// appliance gives none by reading both.
import { isZero, MidmirrorError } from '@midmirror/basis';
import { DIGEST_BYTES, runsOf, sameAt } from '../core/differing.ts';
import type { PlannedRange } from '../core/range-list.ts';
import { limits } from '../limits.ts';
import type { Source } from './mirror-source.ts';
import type { Target } from './target.ts';

/**
 * SHA-256 of each block of a range of the point, the last block may be shorter. Null: the appliance gives none.
 * Rejects with MidmirrorError.
 */
export type Digests = (offset: number, length: number, blockBytes: number) => Promise<Uint8Array | null>;

const BLOCK = limits.compareBlockBytes;

export interface Compared {
  differing: PlannedRange[];
  /** Of them bytes that were read from the mirror for this. */
  readBytes: number;
}

export async function compareChunk(
  source: Source,
  target: Target,
  digests: Digests,
  startBytes: number,
  lengthBytes: number,
): Promise<Compared> {
  const kinds = await kindsOf(source, target, startBytes, lengthBytes);
  const differing: PlannedRange[] = [];
  let readBytes = 0;
  for (let from = 0; from < kinds.length; ) {
    const kind = kinds[from]!;
    let to = from + 1;
    while (to < kinds.length && kinds[to] === kind) to += 1;
    const start = startBytes + from * BLOCK;
    const length = Math.min(to * BLOCK, lengthBytes) - from * BLOCK;
    from = to;
    if (kind === Kind.same) continue;
    if (kind === Kind.differs) {
      differing.push({ startBytes: start, lengthBytes: length, zeroes: false });
      continue;
    }
    const zeroes = kind === Kind.zeroes;
    const wanted = zeroes ? null : await digests(start, length, BLOCK);
    if (wanted !== null && wanted.length !== Math.ceil(length / BLOCK) * DIGEST_BYTES)
      throw new MidmirrorError('io', `the appliance answers ${wanted.length} bytes of digests at ${start}`);
    if (!zeroes && wanted === null) readBytes += length;
    differing.push(...(await differingIn(source, target, wanted, start, length, zeroes)));
  }
  return { differing, readBytes };
}

const Kind = {
  /** Zeroes on both sides, as both say. */
  same: 0,
  /** Zeroes of the target by its own word, where the point holds data. */
  differs: 1,
  /** The point is zeroes; of the target nobody knows. */
  zeroes: 2,
  data: 3,
} as const;

/** What is known of each block without reading it. */
async function kindsOf(
  source: Source,
  target: Target,
  startBytes: number,
  lengthBytes: number,
): Promise<Uint8Array> {
  const blocks = Math.ceil(lengthBytes / BLOCK);
  const pointHolds = new Uint8Array(blocks);
  const targetHolds = new Uint8Array(blocks);
  const mark = (holds: Uint8Array, at: number, end: number): void =>
    void holds.fill(1, Math.floor(at / BLOCK), Math.ceil(Math.min(end, lengthBytes) / BLOCK));
  let at = 0;
  for await (const part of source.status(startBytes, lengthBytes)) {
    if (!part.zeroes) mark(pointHolds, at, at + part.lengthBytes);
    at += part.lengthBytes;
  }
  at = 0;
  for (const part of await target.zeroParts(startBytes, lengthBytes)) {
    if (!part.zeroes) mark(targetHolds, at, at + part.lengthBytes);
    at += part.lengthBytes;
  }
  return pointHolds.map((holds, i) => {
    if (targetHolds[i] === 0) return holds === 0 ? Kind.same : Kind.differs;
    return holds === 0 ? Kind.zeroes : Kind.data;
  });
}

async function differingIn(
  source: Source,
  target: Target,
  wanted: Uint8Array | null,
  startBytes: number,
  lengthBytes: number,
  zeroes: boolean,
): Promise<PlannedRange[]> {
  const found: PlannedRange[] = [];
  const step = Math.min(limits.pieceBytesMax, lengthBytes);
  const ours = new Uint8Array(step);
  const theirs = zeroes || wanted !== null ? null : new Uint8Array(step);
  for (let done = 0; done < lengthBytes; done += step) {
    const length = Math.min(step, lengthBytes - done);
    const differs = new Uint8Array(Math.ceil(length / BLOCK));
    await Promise.all([
      target.read(startBytes + done, length, ours),
      theirs === null ? null : source.read(startBytes + done, length, theirs),
    ]);
    await Promise.all(
      Array.from(differs, async (_, block) => {
        const [from, to] = [block * BLOCK, Math.min((block + 1) * BLOCK, length)];
        if (zeroes) differs[block] = isZero(ours.subarray(from, to)) ? 0 : 1;
        else if (theirs !== null) differs[block] = sameAt(ours, theirs, from, to) ? 0 : 1;
        else {
          // On the thread pool: both cores hash, and the loop goes on.
          const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', ours.subarray(from, to)));
          const place = (done / BLOCK + block) * DIGEST_BYTES;
          differs[block] =
            Buffer.compare(digest, wanted!.subarray(place, place + DIGEST_BYTES)) === 0 ? 0 : 1;
        }
      }),
    );
    for (const run of runsOf(length, BLOCK, (block) => differs[block] === 1))
      found.push({ startBytes: startBytes + done + run.startBytes, lengthBytes: run.lengthBytes, zeroes });
  }
  return found;
}
