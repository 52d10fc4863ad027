// Writes an archive as a stream. Everything about it is known before the first byte but its checksums, which end it.
import { createHash, type Hash } from 'node:crypto';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { encodeChecksums, type MemberChecksum } from './checksums.ts';
import { type LayerOptions, layerNames, wrapLayers } from './layers.ts';
import { limits } from './limits.ts';
import {
  decodeManifest,
  encodeManifest,
  type Manifest,
  type TapePoint,
  type TapeVolume,
} from './manifest.ts';
import { archiveName, CHECKSUMS_MEMBER, dataMember, MANIFEST_MEMBER } from './names.ts';
import type { TapeExtent } from './qcow2/cluster-runs.ts';
import { planQcow2, type Qcow2Piece, type Qcow2Plan, qcow2Pieces } from './qcow2/plan.ts';
import { encodeTarHeader, paddingBytes, TAR_END, tarMemberBytes } from './tar-blocks.ts';

export interface ArchiveRequest {
  /** A new id: lower-case letters, digits and dashes, 36 at most. */
  archive: string;
  volume: TapeVolume;
  point: TapePoint;
  /** Null: an image. Else what `extents` are the difference to. */
  parent: Pick<Manifest, 'archive' | 'name' | 'point' | 'chain' | 'volume'> | null;
  /** RFC 3339, UTC. */
  created: string;
  layers: LayerOptions;
  /**
   * Gone through once to plan and once to write, and has to be the same both times. Image: what is data at the point.
   * Difference: what may differ from the parent, as data, or as zero where it reads as zeroes now.
   */
  extents: Iterable<TapeExtent>;
}

export interface ArchivePlan {
  readonly manifest: Manifest;
  /** That will be read from the volume. */
  readonly dataBytes: number;
  readonly zeroBytes: number;
  /** Of the tar stream: what goes to tape when there is no layer; age adds some 0.03 %, zstd takes what it can. */
  readonly tarBytes: number;
  readonly request: ArchiveRequest;
  readonly qcow2: Qcow2Plan;
}

/** Of all bytes there is no SHA-256 here: who puts them on media has it. */
export interface WrittenSummary {
  bytes: number;
  members: readonly MemberChecksum[];
}

export interface VolumeReads {
  /**
   * Fills `target` with the bytes of the volume at the point, 1 MiB at most and whole clusters of 64 KiB but for the
   * volume's end. Called ahead, up to `readsAheadMax` at once.
   */
  read(startBytes: number, lengthBytes: number, target: Uint8Array): Promise<void>;
  signal?: AbortSignal;
}

/** Bytes of the file, and the buffer that they are in, when it is one of those that are used again. */
interface Filled {
  bytes: Uint8Array;
  buffer: Uint8Array | null;
}

/** Throws `bad-request` naming what is wrong. Reads nothing of the volume. */
export function planArchive(request: ArchiveRequest): ArchivePlan {
  const { archive, volume, point, parent, created } = request;
  const layers = layerNames(request.layers);
  const name = archiveName(volume.name, point.time, archive);
  if (parent !== null && parent.volume.id !== volume.id)
    throw new MidmirrorError(
      'bad-request',
      `parent ${parent.archive} is of volume ${parent.volume.id}, not ${volume.id}`,
    );
  if (parent !== null && parent.chain.length + 1 > limits.chainMax)
    throw new MidmirrorError('bad-request', `a chain of more than ${limits.chainMax} differences`, {
      hint: 'write an image',
    });
  const manifestOf = (memberBytes: number): Manifest => ({
    archive,
    name,
    volume,
    kind: parent === null ? 'image' : 'difference',
    point,
    parent: parent === null ? null : { archive: parent.archive, name: parent.name, point: parent.point },
    chain: parent === null ? [] : [parent.archive, ...parent.chain],
    created,
    layers,
    data: { member: dataMember(name), memberBytes },
  });
  checkReadable(manifestOf(1));
  const qcow2 = planQcow2(
    volume.sizeBytes,
    parent === null ? null : dataMember(parent.name),
    request.extents,
  );
  const manifest = manifestOf(qcow2.bytes);
  const { dataBytes, zeroBytes } = qcow2;
  return { manifest, dataBytes, zeroBytes, tarBytes: tarBytesOf(manifest), request, qcow2 };
}

/** What we write has to be what we read. */
function checkReadable(manifest: Manifest): void {
  try {
    decodeManifest(encodeManifest(manifest));
  } catch (cause) {
    throw new MidmirrorError('bad-request', `no such archive can be: ${messageOf(cause)}`, { cause });
  }
}

function tarBytesOf(manifest: Manifest): number {
  const modified = new Date(manifest.created);
  const { member, memberBytes } = manifest.data;
  const sha256 = '0'.repeat(64);
  const first = { name: MANIFEST_MEMBER, bytes: encodeManifest(manifest).length };
  const data = { name: member, bytes: memberBytes };
  const last = encodeChecksums([first, data].map((each) => ({ ...each, sha256 })));
  return [first, data, { name: CHECKSUMS_MEMBER, bytes: last.length }].reduce(
    (sum, each) => sum + tarMemberBytes(each, modified),
    TAR_END.length,
  );
}

/** One writing of a planned archive. */
export class ArchiveWriting {
  readonly plan: ArchivePlan;
  readonly #volume: VolumeReads;
  readonly #members: MemberChecksum[] = [];
  readonly #free: Uint8Array[] = [];
  #started = false;
  #dataBytesRead = 0;
  #bytes = 0;
  #summary: WrittenSummary | null = null;

  constructor(plan: ArchivePlan, volume: VolumeReads) {
    this.plan = plan;
    this.#volume = volume;
  }

  /** How far it is: of `plan.dataBytes`, and bytes given. */
  get progress(): { dataBytesRead: number; bytes: number } {
    return { dataBytesRead: this.#dataBytesRead, bytes: this.#bytes };
  }

  /** Of an archive that has been given to its last byte. */
  get summary(): WrittenSummary {
    if (this.#summary !== null) return this.#summary;
    throw new MidmirrorError('conflict', `archive ${this.plan.manifest.archive} is not written to its end`);
  }

  /** Once. Reads no further than `readsAheadMax` ahead. A chunk is the taker's until it asks for the next. */
  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#started) throw new MidmirrorError('conflict', 'an archive is written once; plan it again');
    this.#started = true;
    for await (const chunk of wrapLayers(this.#tar(), this.plan.request.layers)) {
      this.#volume.signal?.throwIfAborted();
      this.#bytes += chunk.length;
      yield chunk;
    }
    this.#summary = { bytes: this.#bytes, members: this.#members };
  }

  async *#tar(): AsyncGenerator<Uint8Array, void, undefined> {
    const { manifest } = this.plan;
    const modified = new Date(manifest.created);
    const encoded = encodeManifest(manifest);
    yield* smallMember(MANIFEST_MEMBER, encoded, modified);
    this.#members.push({
      name: MANIFEST_MEMBER,
      bytes: encoded.length,
      sha256: createHash('sha256').update(encoded).digest('hex'),
    });
    const { member, memberBytes } = manifest.data;
    yield encodeTarHeader({ name: member, bytes: memberBytes }, modified);
    const hash = createHash('sha256');
    yield* this.#qcow2(hash);
    yield Buffer.alloc(paddingBytes(memberBytes));
    this.#members.push({ name: member, bytes: memberBytes, sha256: hash.digest('hex') });
    const checksums = encodeChecksums(this.#members);
    yield* smallMember(CHECKSUMS_MEMBER, checksums, modified);
    yield TAR_END;
  }

  /** Pieces in order; while one is on its way the next are being read. */
  async *#qcow2(hash: Hash): AsyncGenerator<Uint8Array, void, undefined> {
    const pieces = qcow2Pieces(this.plan.qcow2, this.plan.request.extents);
    const ahead: Promise<Filled>[] = [];
    let next = pieces.next();
    try {
      while (!next.done || ahead.length > 0) {
        for (; !next.done && ahead.length <= limits.readsAheadMax - 1; next = pieces.next()) {
          const filled = this.#fill(next.value);
          filled.catch(() => {}); // awaited in its turn
          ahead.push(filled);
        }
        const { bytes, buffer } = await ahead.shift()!;
        hash.update(bytes);
        yield bytes;
        if (buffer !== null) this.#free.push(buffer);
      }
    } finally {
      await Promise.allSettled(ahead);
    }
  }

  async #fill(piece: Qcow2Piece): Promise<Filled> {
    if (piece.kind === 'table') return { bytes: piece.bytes, buffer: null };
    const { startBytes, lengthBytes, padBytes } = piece;
    this.#volume.signal?.throwIfAborted();
    const buffer = this.#free.pop() ?? new Uint8Array(limits.pieceBytesMax);
    await this.#volume.read(startBytes, lengthBytes, buffer.subarray(0, lengthBytes));
    this.#dataBytesRead += lengthBytes;
    buffer.fill(0, lengthBytes, lengthBytes + padBytes);
    return { bytes: buffer.subarray(0, lengthBytes + padBytes), buffer };
  }
}

function* smallMember(name: string, bytes: Buffer, modified: Date): Generator<Uint8Array, void, undefined> {
  yield encodeTarHeader({ name, bytes: bytes.length }, modified);
  yield bytes;
  yield Buffer.alloc(paddingBytes(bytes.length));
}
