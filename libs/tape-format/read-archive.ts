// Reads an archive as a stream: its manifest, then ranges of the volume, then the proof. A SHA-256 is known at its
// end only, so RANGES ARE PROVISIONAL until the generator has ended without an error.
import { createHash, type Hash } from 'node:crypto';
import { MidmirrorError } from '@midmirror/basis';
import { ByteReader, EndOfBytes } from './byte-reader.ts';
import { decodeChecksums, type MemberChecksum } from './checksums.ts';
import { unwrapLayers } from './layers.ts';
import { limits } from './limits.ts';
import { decodeManifest, type LayerName, type Manifest } from './manifest.ts';
import { CHECKSUMS_MEMBER, dataMember, MANIFEST_MEMBER } from './names.ts';
import { LayoutMismatch, type RestoredRange, restoredRanges } from './qcow2/read.ts';
import { CLUSTER_BYTES, payloadCluster, type Qcow2Shape, shapeOfFile } from './qcow2/shape.ts';
import { readTarEnd, readTarHeader, skipPadding, type TarMember } from './tar-blocks.ts';
import { type Place, tapeError } from './tape-error.ts';

export interface ReadOptions {
  /** As `parseIdentities` gives them; needed for archives with the layer age. */
  identities?: readonly string[];
  /** From the label, where there is one: other layers are damage. */
  layers?: readonly LayerName[];
  /** What that of all bytes has to be, where the catalogue knows it. */
  sha256?: string;
  /** That of all bytes, from a source that has hashed them: asked for at its end, and they are not hashed again here. */
  sourceSha256?: () => string;
  /** Ranges give their bytes in one and the same buffer: they are the receiver's until it asks for the next. */
  reuseBuffer?: boolean;
  signal?: AbortSignal;
}

export interface ArchiveSummary {
  bytes: number;
  /** Of all bytes, as they came from the tape. */
  sha256: string;
  members: readonly MemberChecksum[];
}

const TAR_END_SECTION = 'end of the tar stream';
const WHOLE_SECTION = 'whole archive';

/**
 * Reads up to the manifest. Errors carry `details.reason` (a TapeFault) and `details.section`; errors of `source` pass
 * as they are. Close the reading, or go through its ranges.
 */
export async function openArchive(
  source: AsyncIterable<Uint8Array>,
  options: ReadOptions = {},
): Promise<ArchiveReading> {
  const raw = new RawBytes(source, options);
  let reader = new ByteReader(raw.chunks());
  try {
    const unwrapped = await unwrapLayers(reader, options.identities ?? [], options.layers);
    reader = unwrapped.tar;
    await refuseForeign(reader);
    const header = await readTarHeader(reader, MANIFEST_MEMBER);
    if (header?.name !== MANIFEST_MEMBER)
      throw tapeError('foreign', { section: MANIFEST_MEMBER }, `the first member is "${header?.name ?? ''}"`);
    const bytes = await readSmall(reader, header, limits.manifestBytesMax, 'foreign');
    await skipPadding(reader, bytes.length, MANIFEST_MEMBER);
    return new ArchiveReading(decodeManifest(bytes), bytes, unwrapped.layers, reader, raw, options);
  } catch (error) {
    await reader.close().catch(() => {});
    throw named(error, { section: MANIFEST_MEMBER });
  }
}

/** The manifest alone, of an archive on a shelf. It is provisional too: its checksum stands at the end. */
export async function readManifest(
  source: AsyncIterable<Uint8Array>,
  options: ReadOptions = {},
): Promise<Manifest> {
  const reading = await openArchive(source, options);
  await reading.close();
  return reading.manifest;
}

export class ArchiveReading {
  readonly manifest: Manifest;
  /** Those that were there. A layer may have been undone by hand, so the manifest may have more. */
  readonly layers: readonly LayerName[];
  readonly #manifestBytes: Buffer;
  readonly #reader: ByteReader;
  readonly #raw: RawBytes;
  readonly #options: ReadOptions;
  #started = false;
  #section: string;
  #summary: ArchiveSummary | null = null;

  constructor(
    manifest: Manifest,
    manifestBytes: Buffer,
    layers: readonly LayerName[],
    reader: ByteReader,
    raw: RawBytes,
    options: ReadOptions,
  ) {
    this.manifest = manifest;
    this.layers = layers;
    this.#manifestBytes = manifestBytes;
    this.#reader = reader;
    this.#raw = raw;
    this.#options = options;
    this.#section = manifest.data.member;
  }

  /** Of an archive that has been read to its end and is right. */
  get summary(): ArchiveSummary {
    if (this.#summary !== null) return this.#summary;
    throw new MidmirrorError('conflict', `archive ${this.manifest.archive} is not read to its end`);
  }

  /**
   * Once. Ascending ranges; of an image they cover the volume, of a difference what is left out is as in the parent.
   * PROVISIONAL until this has ended: then all checksums are right, or it has thrown an error that names the section.
   */
  async *ranges(): AsyncGenerator<RestoredRange, void, undefined> {
    if (this.#started) throw new MidmirrorError('conflict', 'an archive is read once; open it again');
    this.#started = true;
    try {
      const { reuseBuffer = false } = this.#options;
      const member = new MemberBytes(this.#reader, await this.#header());
      let mismatch: LayoutMismatch | null = null;
      try {
        yield* restoredRanges(member, this.#shape(), this.manifest.kind, reuseBuffer);
      } catch (error) {
        if (!(error instanceof LayoutMismatch)) throw error;
        mismatch = error;
      }
      await this.#finish(member, mismatch);
    } catch (error) {
      const cause = named(error, this.#place);
      if (isDamage(cause)) await this.#blameLayer();
      throw cause;
    } finally {
      await this.close();
    }
  }

  async close(): Promise<void> {
    this.#started = true;
    await this.#reader.close();
  }

  get #place(): Place {
    return { section: this.#section, archive: this.manifest.archive };
  }

  async #header(): Promise<TarMember> {
    const { member, memberBytes } = this.manifest.data;
    const header = await readTarHeader(this.#reader, member);
    if (header === null) throw tapeError('truncated', this.#place, 'the tar stream ends before it');
    if (header.name !== member || header.bytes !== memberBytes)
      throw tapeError(
        'damaged',
        this.#place,
        `the member is "${header.name}" of ${header.bytes} bytes; the manifest says ${memberBytes}`,
      );
    return header;
  }

  #shape(): Qcow2Shape {
    const { volume, parent, data } = this.manifest;
    const backing = parent === null ? null : dataMember(parent.name);
    const shape = shapeOfFile(volume.sizeBytes, backing, data.memberBytes / CLUSTER_BYTES);
    if (!Number.isInteger(shape.clusters) || shape.clusters < payloadCluster(shape))
      throw new LayoutMismatch('qcow2 file');
    return shape;
  }

  /** Damage to the layer zstd shows in what it wraps first, as its own checksum stands at its end: throws if it is that. */
  async #blameLayer(): Promise<void> {
    if (!this.layers.includes('zstd')) return;
    while ((await this.#reader.some(Number.MAX_SAFE_INTEGER)).length > 0);
  }

  /** Whether a table that we would not write is damage or another program's work is known from the checksums. */
  async #finish(member: MemberBytes, mismatch: LayoutMismatch | null): Promise<void> {
    const { archive, data } = this.manifest;
    await member.drain();
    await skipPadding(this.#reader, data.memberBytes, data.member);
    this.#section = CHECKSUMS_MEMBER;
    const checksums = await this.#checksums();
    const [manifestSum, dataSum] = checksums;
    const manifestSha256 = sha256Of(this.#manifestBytes);
    if (manifestSum?.sha256 !== manifestSha256)
      throw tapeError('damaged', { section: MANIFEST_MEMBER, archive }, 'its SHA-256 is wrong');
    const place = { section: data.member, archive };
    if (dataSum?.sha256 !== member.sha256)
      throw tapeError(
        'damaged',
        place,
        mismatch === null ? 'its SHA-256 is wrong' : `its SHA-256 is wrong, and so is the ${mismatch.part}`,
      );
    if (mismatch !== null) throw tapeError('layout', place, mismatch.message);
    this.#section = TAR_END_SECTION;
    if ((await readTarHeader(this.#reader, TAR_END_SECTION)) !== null)
      throw tapeError('damaged', this.#place, 'there is a member after the last');
    await readTarEnd(this.#reader, TAR_END_SECTION);
    this.#section = WHOLE_SECTION;
    const { sha256, bytes } = this.#raw.end();
    const expected = this.#options.sha256;
    if (expected !== undefined && expected !== sha256)
      throw tapeError('damaged', this.#place, `its SHA-256 is ${sha256}, and the catalogue says ${expected}`);
    this.#summary = { bytes, sha256, members: checksums };
  }

  async #checksums(): Promise<MemberChecksum[]> {
    const header = await readTarHeader(this.#reader, CHECKSUMS_MEMBER);
    if (header === null) throw tapeError('truncated', this.#place, 'the tar stream ends before it');
    if (header.name !== CHECKSUMS_MEMBER)
      throw tapeError('damaged', this.#place, `in its place is "${header.name}"`);
    const bytes = await readSmall(this.#reader, header, limits.checksumsBytesMax, 'damaged');
    await skipPadding(this.#reader, bytes.length, CHECKSUMS_MEMBER);
    const checksums = decodeChecksums(bytes, this.manifest.archive);
    const names = checksums.map(({ name }) => name).join(' ');
    if (names !== `${MANIFEST_MEMBER} ${this.manifest.data.member}`)
      throw tapeError('damaged', this.#place, `it is about ${names}`);
    return checksums;
  }
}

/** The bytes as they come from the tape, hashed unless their source has done so. */
class RawBytes {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #signal: AbortSignal | undefined;
  readonly #hash: Hash | null;
  readonly #sha256: () => string;
  #bytes = 0;

  constructor(source: AsyncIterable<Uint8Array>, { signal, sourceSha256 }: ReadOptions) {
    this.#source = source;
    this.#signal = signal;
    const hash = sourceSha256 === undefined ? createHash('sha256') : null;
    this.#hash = hash;
    this.#sha256 = sourceSha256 ?? (() => hash!.digest('hex'));
  }

  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of this.#source) {
      this.#signal?.throwIfAborted();
      this.#hash?.update(chunk);
      this.#bytes += chunk.length;
      yield chunk;
    }
  }

  end(): { sha256: string; bytes: number } {
    return { sha256: this.#sha256(), bytes: this.#bytes };
  }
}

/** A member's bytes, hashed as they are taken. */
class MemberBytes {
  readonly #reader: ByteReader;
  readonly #hash = createHash('sha256');
  #leftBytes: number;

  constructor(reader: ByteReader, member: TarMember) {
    this.#reader = reader;
    this.#leftBytes = member.bytes;
  }

  async fill(target: Uint8Array): Promise<void> {
    if (target.length > this.#leftBytes) throw new LayoutMismatch('qcow2 file');
    await this.#reader.fill(target);
    this.#leftBytes -= target.length;
    this.#hash.update(target);
  }

  async drain(): Promise<void> {
    while (this.#leftBytes > 0) {
      const part = await this.#reader.some(this.#leftBytes);
      if (part.length === 0) throw new EndOfBytes('within a member');
      this.#leftBytes -= part.length;
      this.#hash.update(part);
    }
  }

  /** Once, at the end. */
  get sha256(): string {
    return this.#hash.digest('hex');
  }
}

async function readSmall(
  reader: ByteReader,
  { name, bytes }: TarMember,
  bytesMax: number,
  fault: 'foreign' | 'damaged',
): Promise<Buffer> {
  if (bytes > bytesMax)
    throw tapeError(fault, { section: name }, `it has ${bytes} bytes, and ours ${bytesMax} at most`);
  return reader.exactly(bytes);
}

/** A first block that has nothing of tar was never ours, or its layers are not those that we know. */
async function refuseForeign(reader: ByteReader): Promise<void> {
  const block = Buffer.alloc(512);
  const had = await reader.fillSome(block);
  reader.putBack(block.subarray(0, had));
  if (had < 512) return; // told as truncated by who reads on
  if (block.toString('latin1', 257, 262) === 'ustar') return;
  throw tapeError('foreign', { section: WHOLE_SECTION }, 'it is neither tar, nor zstd or age round it');
}

const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

function named(error: unknown, place: Place): unknown {
  if (!(error instanceof EndOfBytes)) return error;
  return tapeError('truncated', place, 'the archive ends within it', { cause: error });
}

function isDamage(error: unknown): boolean {
  return error instanceof MidmirrorError && error.details['reason'] === 'damaged';
}
