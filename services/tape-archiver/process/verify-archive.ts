// Reads an archive from its media to the last byte, and compares it with the point while that is on disk.
import { createHash } from 'node:crypto';
import { isZero, MidmirrorError } from '@midmirror/basis';
import type { MirrorSource } from '@midmirror/restore';
import { type LayerName, type Manifest, openArchive, type RestoredRange } from '@midmirror/tape-format';
import type { TapeLibrary } from '@midmirror/tape-library';
import { limits } from './limits.ts';
import { openPoint } from './point-source.ts';
import { type PacedReads, pacedReads } from './paced-reads.ts';
import type { TapeProgress, VerifiedArchive, VerifyOrder } from './protocol.ts';

export interface VerifyEdges {
  library: TapeLibrary;
  identities: readonly string[];
  signal: AbortSignal;
  report: (progress: TapeProgress) => void;
}

export async function verifyOrder(order: VerifyOrder, edges: VerifyEdges): Promise<VerifiedArchive> {
  if (order.label.layers.includes('age') && edges.identities.length === 0) return await rawOf(order, edges);
  try {
    return await wholeOf(order, edges);
  } catch (error) {
    // A damaged line of a key looks the same: the bytes as they lie there tell.
    if (error instanceof MidmirrorError && error.details['reason'] === 'key')
      return await rawOf(order, edges);
    throw error;
  }
}

async function wholeOf(order: VerifyOrder, edges: VerifyEdges): Promise<VerifiedArchive> {
  const { identities, signal } = edges;
  const { label, parts, sha256 } = order;
  const reading = await openArchive(progressing(order, edges, order.uri === null ? 'reading' : 'comparing'), {
    identities,
    layers: label.layers as readonly LayerName[],
    signal,
    reuseBuffer: true,
    ...(sha256 === null ? {} : { sha256 }),
    // The library compares each part: one that is all of the archive need not be hashed once more.
    ...(parts.length === 1 ? { sourceSha256: () => parts[0]!.sha256 } : {}),
  });
  let point: MirrorSource | null = null;
  try {
    refuseOther(reading.manifest, order);
    point = await pointOf(order, reading.manifest);
    const compare = point === null ? null : new Comparison(point, label.name);
    // To the end, whatever it holds: a wrong checksum says more than bytes that differ from the point.
    for await (const range of reading.ranges()) await compare?.take(range);
    compare?.refuseDifference();
  } finally {
    await reading.close();
    await point?.close();
  }
  return { ...reading.summary, compared: point !== null };
}

/** Only what lies on the media: it can't be looked into. */
async function rawOf(order: VerifyOrder, edges: VerifyEdges): Promise<VerifiedArchive> {
  const { parts } = order;
  const hash = parts.length === 1 ? null : createHash('sha256');
  let bytes = 0;
  for await (const piece of progressing(order, edges, 'reading')) {
    bytes += piece.length;
    hash?.update(piece);
  }
  const sha256 = hash?.digest('hex') ?? parts[0]!.sha256;
  if (order.sha256 !== null && order.sha256 !== sha256)
    throw new MidmirrorError(
      'corrupt',
      `archive ${order.label.archiveId}: its SHA-256 is ${sha256}, and the catalogue says ${order.sha256}`,
      { hint: 'read another copy of the archive' },
    );
  return { bytes, sha256, members: null, compared: false };
}

async function* progressing(
  { parts }: VerifyOrder,
  { library, signal, report }: VerifyEdges,
  phase: TapeProgress['phase'],
): AsyncGenerator<Uint8Array, void, undefined> {
  const bytesTotal = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  let bytesDone = 0;
  let part = 0;
  let partEnd = parts[0]?.bytes ?? 0;
  for await (const piece of library.read(parts, { signal })) {
    yield piece;
    bytesDone += piece.length;
    report({ phase, bytesDone, bytesTotal, barcode: parts[part]?.barcode ?? null });
    for (; bytesDone >= partEnd && part < parts.length - 1; part += 1) partEnd += parts[part + 1]!.bytes;
  }
}

function refuseOther(manifest: Manifest, { label }: VerifyOrder): void {
  if (manifest.archive === label.archiveId && manifest.name === label.name) return;
  throw new MidmirrorError(
    'corrupt',
    `the parts of archive ${label.name} (${label.archiveId}) hold the archive ${manifest.name} (${manifest.archive})`,
    { hint: 'a label is on the wrong data; import the cartridge again' },
  );
}

/** Null: it is not asked for, or not on disk any more. */
async function pointOf({ uri }: VerifyOrder, { volume }: Manifest): Promise<MirrorSource | null> {
  if (uri === null) return null;
  try {
    return await openPoint({ uri, sizeBytes: volume.sizeBytes, sinceSeq: null });
  } catch (error) {
    if (error instanceof MidmirrorError && error.code === 'point-unavailable') return null;
    throw error;
  }
}

class Comparison {
  readonly #point: MirrorSource;
  readonly #name: string;
  readonly #reads: PacedReads;
  readonly #buffer = new Uint8Array(limits.pieceBytesMax);
  /** Of the first byte that differs. */
  #offset: number | null = null;

  constructor(point: MirrorSource, name: string) {
    this.#point = point;
    this.#name = name;
    this.#reads = pacedReads(point);
  }

  async take(range: RestoredRange): Promise<void> {
    if (this.#offset !== null) return;
    const { startBytes, lengthBytes } = range;
    if (range.kind === 'zero') return await this.#zeroes(startBytes, lengthBytes);
    const there = this.#buffer.subarray(0, lengthBytes);
    await this.#reads.read(startBytes, lengthBytes, there);
    if (!range.bytes.equals(there))
      this.#offset = startBytes + there.findIndex((byte, at) => byte !== range.bytes[at]);
  }

  /** What the appliance says to be zeroes is not read. */
  async #zeroes(startBytes: number, lengthBytes: number): Promise<void> {
    let at = startBytes;
    for await (const part of this.#point.status(startBytes, lengthBytes)) {
      const end = at + part.lengthBytes;
      for (; !part.zeroes && at < end; at += limits.pieceBytesMax) {
        const there = this.#buffer.subarray(0, Math.min(limits.pieceBytesMax, end - at));
        await this.#reads.read(at, there.length, there);
        if (isZero(there)) continue;
        this.#offset = at + there.findIndex((byte) => byte !== 0);
        return;
      }
      at = end;
    }
  }

  /** Throws `corrupt`. Once all of the archive has been read. */
  refuseDifference(): void {
    if (this.#offset === null) return;
    throw new MidmirrorError(
      'corrupt',
      `archive ${this.#name} is not the point: they differ in the byte at ${this.#offset} of the volume`,
      {
        hint: 'its checksums are right, so it was written so; write another archive of the point',
        details: { offset: this.#offset },
      },
    );
  }
}
