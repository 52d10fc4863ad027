// Backward objects: written once, durable before anybody is told, then only read.
import { MidmirrorError } from '@midmirror/basis';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import {
  checksum,
  decodeObjectFooter,
  decodeObjectHeader,
  encodeObjectFooter,
  encodeObjectHeader,
  Format,
  type ObjectHeader,
  objectTrailer,
  PIECE_BYTES_MAX,
} from '@midmirror/journal';
import { type PoolFile, type PoolFiles, readBytes } from './files.ts';
import { objectName } from './layout.ts';
import { verifyPiece } from './segment-file.ts';

const STAGING_BYTES = 1 << 20;

/** Writes an object piece by piece in ascending address order. */
export class ObjectWriter {
  readonly header: ObjectHeader;
  readonly #files: PoolFiles;
  readonly #file: PoolFile;
  readonly #directory: string;
  readonly #extents = new ExtentMap();
  #at: number = Format.objectHeaderBytes;
  readonly #staging = new Uint8Array(STAGING_BYTES);
  #staged = 0;
  #finishing = false;

  private constructor(files: PoolFiles, file: PoolFile, directory: string, header: ObjectHeader) {
    this.#files = files;
    this.#file = file;
    this.#directory = directory;
    this.header = header;
  }

  /** A half-written object of the same number, left by a crash, is replaced. */
  static async create(files: PoolFiles, directory: string, header: ObjectHeader): Promise<ObjectWriter> {
    const path = `${directory}/${objectName(header.object)}.new`;
    if (await files.exists(path)) await files.unlink(path);
    const writer = new ObjectWriter(files, await files.open(path, 'create'), directory, header);
    await writer.#file.writev([encodeObjectHeader(header)], 0);
    return writer;
  }

  get dataBytes(): number {
    return this.#at + this.#staged - Format.objectHeaderBytes;
  }

  get extents(): ExtentMap {
    return this.#extents;
  }

  zero(start: number, length: number): void {
    this.#extents.put(start, length, ExtentFlag.zero | ExtentFlag.backward, this.header.object, 0, 0);
  }

  /** Copies `bytes`; cut into pieces that each have a checksum. */
  async data(start: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES_MAX) {
      const piece = bytes.subarray(at, Math.min(at + PIECE_BYTES_MAX, bytes.length));
      if (this.#staged + piece.length > STAGING_BYTES) await this.#drain();
      this.#extents.put(
        start + at,
        piece.length,
        ExtentFlag.whole | ExtentFlag.backward,
        this.header.object,
        this.#at + this.#staged,
        checksum(piece),
      );
      this.#staging.set(piece, this.#staged);
      this.#staged += piece.length;
    }
  }

  /** Footer, trailer, fdatasync, rename, directory: after this the object is there for good. */
  async finish(lastPart: boolean): Promise<void> {
    await this.#drain();
    const footer = encodeObjectFooter(this.#extents, lastPart);
    const trailer = objectTrailer.encode(this.header.object, this.header.epoch, this.#at, footer);
    await this.#file.writev([footer, trailer], this.#at);
    await this.#file.datasync();
    this.#finishing = true;
    await this.#file.close();
    const name = objectName(this.header.object);
    await this.#files.rename(`${this.#directory}/${name}.new`, `${this.#directory}/${name}`);
    await this.#files.syncDirectory(this.#directory);
  }

  /** After an error. What `finish` had done to its end stays: nobody knows of it, so the next start removes it. */
  async abandon(): Promise<void> {
    if (this.#finishing) return;
    await this.#file.close();
    await this.#files.unlink(`${this.#directory}/${objectName(this.header.object)}.new`);
  }

  async #drain(): Promise<void> {
    if (this.#staged === 0) return;
    await this.#file.writev([this.#staging.subarray(0, this.#staged)], this.#at);
    this.#at += this.#staged;
    this.#staged = 0;
  }
}

export async function readObject(
  file: PoolFile,
): Promise<{ header: ObjectHeader; extents: ExtentMap; lastPart: boolean }> {
  const header = decodeObjectHeader(await readBytes(file, 0, Format.objectHeaderBytes));
  if (header === null)
    throw new MidmirrorError('corrupt', `${file.path} has no valid object header at offset 0`);
  const at = (await file.size()) - Format.trailerBytes;
  const trailer =
    at < 0 ? null : objectTrailer.decode(await readBytes(file, at, Format.trailerBytes), header);
  if (trailer === null)
    throw new MidmirrorError('corrupt', `${file.path}: the trailer at offset ${at} is damaged`);
  const footer = await readBytes(file, trailer.footerOffset, trailer.footerBytes);
  const decoded = decodeObjectFooter(footer, trailer.footerCrc, header.object);
  if (decoded === null) {
    throw new MidmirrorError(
      'corrupt',
      `${file.path}: the footer at offset ${trailer.footerOffset} is damaged`,
    );
  }
  return { header, ...decoded };
}

/** Reads part of an object, verified by the checksums of the pieces it lies in. */
export class ObjectReader {
  readonly #file: PoolFile;
  /** Pieces by their place in the file; a piece's `start` here is its offset there. */
  readonly #pieces = new ExtentMap();

  private constructor(file: PoolFile, extents: ExtentMap, object: number) {
    this.#file = file;
    for (const cursor = extents.cursor(); cursor.valid; cursor.next()) {
      if (cursor.flags & ExtentFlag.zero) continue;
      this.#pieces.put(cursor.offset, cursor.length, ExtentFlag.whole, object, 0, cursor.crc);
    }
  }

  static async open(file: PoolFile): Promise<ObjectReader> {
    const { header, extents } = await readObject(file);
    return new ObjectReader(file, extents, header.object);
  }

  async read(offset: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    let done = 0;
    while (done < length) {
      const cursor = this.#pieces.cursor(offset + done);
      const at = offset + done;
      if (!cursor.valid || cursor.start > at) {
        throw new MidmirrorError('corrupt', `${this.#file.path}: no record covers offset ${at}`);
      }
      const bytes = await readBytes(this.#file, cursor.start, cursor.length);
      verifyPiece(bytes, cursor.length, cursor.crc, this.#file.path, cursor.start);
      const skip = at - cursor.start;
      const count = Math.min(length - done, cursor.length - skip);
      target.set(bytes.subarray(skip, skip + count), targetOffset + done);
      done += count;
    }
  }
}
