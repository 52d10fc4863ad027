// Reading segment files: header, footer or scan, descriptors of a span of writes, and verified pieces of data.
import { MidmirrorError, Turns } from '@midmirror/basis';
import {
  type Batch,
  batchAt,
  checksumOf,
  type Descriptor,
  DescriptorKind,
  decodeSegmentFooter,
  decodeSegmentHeader,
  decodeSegmentTrailer,
  descriptorsIntact,
  descriptorsOf,
  Format,
  PIECE_BYTES_MAX,
  pageAfter,
  type SegmentFooter,
  type SegmentHeader,
} from '@midmirror/journal';
import { type PoolFile, readBytes } from './files.ts';

const WINDOW_BYTES = 256 << 10;

export async function readSegmentHeader(file: PoolFile): Promise<SegmentHeader> {
  const header = decodeSegmentHeader(await readBytes(file, 0, Format.segmentHeaderBytes));
  if (header === null) {
    throw new MidmirrorError('corrupt', `${file.path} has no valid segment header at offset 0`);
  }
  return header;
}

/** The footer of a sealed segment; null while it is not sealed. */
export async function readSegmentFooter(
  file: PoolFile,
  header: SegmentHeader,
): Promise<SegmentFooter | null> {
  const at = header.segmentBytes - Format.trailerBytes;
  const trailer = decodeSegmentTrailer(await readBytes(file, at, Format.trailerBytes), header);
  if (trailer === null) return null;
  const footer = decodeSegmentFooter(
    await readBytes(file, trailer.footerOffset, trailer.footerBytes),
    trailer.footerCrc,
  );
  if (footer === null) {
    throw new MidmirrorError(
      'corrupt',
      `${file.path}: the footer at offset ${trailer.footerOffset} is damaged`,
    );
  }
  return footer;
}

/** A batch header with its descriptors, read without the data; null where none stands. */
async function readBatch(file: PoolFile, at: number): Promise<{ batch: Batch; bytes: Uint8Array } | null> {
  let bytes = await readBytes(file, at, 4096);
  const batch = batchAt(bytes, 0);
  if (batch === null || batch.offset !== at) return null;
  const length = Format.batchHeaderBytes + batch.descriptorCount * Format.descriptorBytes;
  if (length > bytes.length) bytes = await readBytes(file, at, length);
  if (bytes.length < length) return null;
  const crc = checksumOf(bytes, Format.batchHeaderBytes, length - Format.batchHeaderBytes);
  if (crc !== batch.descriptorsCrc) {
    throw new MidmirrorError(
      'corrupt',
      `${file.path}: the descriptors of the batch at offset ${at} are damaged`,
    );
  }
  return { batch, bytes: bytes.subarray(0, length) };
}

/** Reads batch after batch with few reads: small batches stand close together, large ones are read alone. */
class BatchWindow {
  readonly #file: PoolFile;
  #start = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  #lastBatchBytes = 0;

  constructor(file: PoolFile) {
    this.#file = file;
  }

  async batch(at: number): Promise<{ batch: Batch; bytes: Uint8Array } | null> {
    const read = this.#inWindow(at) ?? (await this.#next(at));
    this.#lastBatchBytes = read?.batch.totalBytes ?? 0;
    return read;
  }

  async #next(at: number): Promise<{ batch: Batch; bytes: Uint8Array } | null> {
    if (this.#lastBatchBytes > WINDOW_BYTES / 4) return await readBatch(this.#file, at);
    this.#bytes = await readBytes(this.#file, at, WINDOW_BYTES);
    this.#start = at;
    return this.#inWindow(at) ?? (await readBatch(this.#file, at));
  }

  #inWindow(at: number): { batch: Batch; bytes: Uint8Array } | null {
    const from = at - this.#start;
    if (from < 0 || from >= this.#bytes.length) return null;
    const batch = batchAt(this.#bytes, from);
    if (batch === null || batch.offset !== at || !descriptorsIntact(this.#bytes, from, batch)) return null;
    const length = Format.batchHeaderBytes + batch.descriptorCount * Format.descriptorBytes;
    return { batch, bytes: this.#bytes.subarray(from, from + length) };
  }
}

/** One segment opened for reading. Knows where its batches are, by footer or, unsealed, by following them. */
export class SegmentReader {
  readonly header: SegmentHeader;
  readonly #file: PoolFile;
  #offsets: number[] = [];
  #nextOffset: number = Format.segmentHeaderBytes;
  #sealed = false;
  /** Reads side by side would note the same batches again, out of order. */
  readonly #following = new Turns();
  #recent: { at: number; batch: Batch; bytes: Uint8Array } | null = null;

  private constructor(file: PoolFile, header: SegmentHeader) {
    this.#file = file;
    this.header = header;
  }

  static async open(file: PoolFile): Promise<SegmentReader> {
    return new SegmentReader(file, await readSegmentHeader(file));
  }

  async footer(): Promise<SegmentFooter | null> {
    return await readSegmentFooter(this.#file, this.header);
  }

  /** Batches whose writes may lie in `(afterSeq, toSeq]`, in order; `bytes` is header and descriptors. */
  async *batches(afterSeq: number, toSeq: number): AsyncGenerator<{ batch: Batch; bytes: Uint8Array }> {
    await this.#follow(Number.POSITIVE_INFINITY);
    const window = new BatchWindow(this.#file);
    for (const at of this.#offsets) {
      const read = await window.batch(at);
      if (read === null || read.batch.segment !== this.header.segment) throw this.#damagedHeader(at);
      if (read.batch.firstSeq > toSeq) return;
      if (read.batch.firstSeq + read.batch.writeCount - 1 > afterSeq || read.batch.writeCount === 0)
        yield read;
    }
  }

  /** Where in a sealed segment the data of writes after `seq` begins: none of it lies before, none of others behind. */
  async dataAfter(seq: number): Promise<number> {
    const footer = await this.footer();
    if (footer === null)
      throw new MidmirrorError('corrupt', `${this.#file.path}: the segment was sealed and has no footer`);
    const at = footer.batches.findLastIndex((batch) => batch.firstSeq <= seq);
    if (at >= 0) {
      const { batch, bytes } = await this.#readAt(footer.batches[at]!.offset);
      for (const { kind, seq: written, dataOffset } of descriptorsOf(bytes, 0, batch))
        if (kind === DescriptorKind.write && written > seq) return dataOffset;
    }
    return footer.batches[at + 1]?.offset ?? footer.endOffset;
  }

  /** Reads `length` bytes at `offset`, verified by the checksum of the piece they belong to (I8). */
  async read(offset: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    let done = 0;
    while (done < length) {
      const piece = await this.#pieceAt(offset + done);
      const bytes = await readBytes(this.#file, piece.dataOffset, piece.length);
      verifyPiece(bytes, piece.length, piece.crc, this.#file.path, piece.dataOffset);
      const skip = offset + done - piece.dataOffset;
      const count = Math.min(length - done, piece.length - skip);
      target.set(bytes.subarray(skip, skip + count), targetOffset + done);
      done += count;
    }
  }

  async #pieceAt(offset: number): Promise<Descriptor> {
    await this.#follow(offset);
    let low = 0;
    let high = this.#offsets.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#offsets[middle]! <= offset) low = middle + 1;
      else high = middle;
    }
    if (low > 0) {
      const read = await this.#readAt(this.#offsets[low - 1]!);
      for (const descriptor of descriptorsOf(read.bytes, 0, read.batch)) {
        if (descriptor.kind !== 1 && descriptor.kind !== 4) continue;
        const into = offset - descriptor.dataOffset;
        if (into >= 0 && into < descriptor.length) return { ...descriptor };
      }
    }
    throw new MidmirrorError('corrupt', `${this.#file.path}: no record covers offset ${offset}`);
  }

  async #readAt(at: number): Promise<{ batch: Batch; bytes: Uint8Array }> {
    if (this.#recent?.at === at) return this.#recent;
    const read = await readBatch(this.#file, at);
    if (read === null || read.batch.segment !== this.header.segment) throw this.#damagedHeader(at);
    this.#recent = { at, ...read };
    return this.#recent;
  }

  #damagedHeader(at: number): MidmirrorError {
    return new MidmirrorError('corrupt', `${this.#file.path}: the batch header at offset ${at} is damaged`);
  }

  /** Learns the batches up to one beyond `offset`, or all that are there. */
  async #follow(offset: number): Promise<void> {
    if (this.#sealed || this.#nextOffset > offset) return;
    await this.#following.take(() => this.#followOn(offset));
  }

  async #followOn(offset: number): Promise<void> {
    if (this.#sealed || this.#nextOffset > offset) return;
    const footer = await readSegmentFooter(this.#file, this.header);
    if (footer !== null) {
      this.#offsets = footer.batches.map((batch) => batch.offset);
      this.#sealed = true;
      return;
    }
    // No further: what follows may be on its way into the file just now.
    while (this.#nextOffset <= offset) {
      const at = await this.#nextBatch();
      if (at === null) return;
      this.#offsets.push(at.offset);
      this.#nextOffset = at.offset + at.totalBytes;
    }
  }

  /** A batch follows the one before at once, or begins at the next page. */
  async #nextBatch(): Promise<Batch | null> {
    for (const at of [this.#nextOffset, pageAfter(this.#nextOffset)]) {
      const read = await readBatch(this.#file, at);
      if (read?.batch.segment === this.header.segment && read.batch.epoch === this.header.epoch)
        return read.batch;
    }
    return null;
  }
}

/** Throws `corrupt` naming file and offset unless the piece has the checksum. */
export function verifyPiece(
  bytes: Uint8Array,
  length: number,
  crc: number,
  path: string,
  offset: number,
): void {
  if (length > PIECE_BYTES_MAX && bytes.length === length) {
    throw new MidmirrorError(
      'corrupt',
      `${path}: a piece of ${length} bytes at offset ${offset} is larger than any`,
    );
  }
  if (bytes.length !== length || checksumOf(bytes, 0, length) !== crc) {
    throw new MidmirrorError(
      'corrupt',
      `${path}: the data at offset ${offset} (${length} bytes) fails its checksum`,
      {
        hint: 'the medium or the file system under the pool has damaged it; run `mim verify` on the volume',
      },
    );
  }
}
