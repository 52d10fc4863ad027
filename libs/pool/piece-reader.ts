// Reads extents wherever they lie: forward segments and backward objects of one volume, verified (I8).
// Keeps a bounded number of files open. What it reads must be pinned by the caller (I9).
import { MidmirrorError } from '@midmirror/basis';
import { ExtentFlag } from '@midmirror/extent-map';
import { type PoolFile, type PoolFiles, readBytes } from './files.ts';
import { objectName, segmentsOf, type VolumePaths } from './layout.ts';
import { ObjectReader } from './object-file.ts';
import { SegmentReader, verifyPiece } from './segment-file.ts';

const OPEN_SOURCES_MAX = 256;

interface Source {
  file: PoolFile;
  reader: Promise<SegmentReader | ObjectReader> | null;
  users: number;
}

export class PieceReader {
  readonly #files: PoolFiles;
  readonly #paths: VolumePaths;
  readonly #sources = new Map<number, Promise<Source>>();
  readonly #ready = new Map<number, Source>();

  constructor(files: PoolFiles, paths: VolumePaths) {
    this.#files = files;
    this.#paths = paths;
  }

  /**
   * Reads `length` bytes of the extent that lies at `offset` of `source`. With the flag `whole`, `crc` is the
   * checksum of `extentLength` bytes from `offset - skip` on, and the read needs no other record.
   */
  async read(
    extent: { flags: number; source: number; offset: number; length: number; crc: number },
    skip: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    const source = await this.#source(extent.flags, extent.source);
    source.users += 1;
    try {
      if (extent.flags & ExtentFlag.whole) {
        if (skip === 0 && length === extent.length) {
          const count = await source.file.read(target, targetOffset, length, extent.offset);
          const bytes = target.subarray(targetOffset, targetOffset + count);
          verifyPiece(bytes, length, extent.crc, source.file.path, extent.offset);
          return;
        }
        const bytes = await readBytes(source.file, extent.offset, extent.length);
        verifyPiece(bytes, extent.length, extent.crc, source.file.path, extent.offset);
        target.set(bytes.subarray(skip, skip + length), targetOffset);
        return;
      }
      const reader = await this.#reader(extent.flags, source);
      await reader.read(extent.offset + skip, length, target, targetOffset);
    } finally {
      source.users -= 1;
    }
  }

  /** Reads a whole extent at once when its file is open already; false: nothing done, use `read`. */
  tryRead(
    flags: number,
    source: number,
    offset: number,
    length: number,
    crc: number,
    target: Uint8Array,
    at: number,
  ): boolean {
    if ((flags & ExtentFlag.whole) === 0) return false;
    const open = this.#ready.get(sourceKey(flags, source));
    if (open === undefined) return false;
    const count = open.file.readSync(target, at, length, offset);
    verifyPiece(target.subarray(at, at + count), length, crc, open.file.path, offset);
    return true;
  }

  async segment(segment: number): Promise<SegmentReader> {
    const source = await this.#source(0, segment);
    return (await this.#reader(0, source)) as SegmentReader;
  }

  /** Forgets a file that is about to be recycled or deleted. */
  async forget(backward: boolean, source: number): Promise<void> {
    const key = sourceKey(backward ? ExtentFlag.backward : 0, source);
    const open = this.#sources.get(key);
    this.#sources.delete(key);
    this.#ready.delete(key);
    if (open !== undefined)
      await open.then(
        (found) => found.file.close(),
        () => {},
      );
  }

  async close(): Promise<void> {
    const open = [...this.#sources.values()];
    this.#sources.clear();
    this.#ready.clear();
    for (const source of open)
      await source.then(
        (found) => found.file.close(),
        () => {},
      );
  }

  async #source(flags: number, source: number): Promise<Source> {
    const key = sourceKey(flags, source);
    const known = this.#sources.get(key);
    if (known !== undefined) return await known;
    await this.#makeRoom();
    const opening = this.#open(flags, source);
    this.#sources.set(key, opening);
    try {
      const opened = await opening;
      this.#ready.set(key, opened);
      return opened;
    } catch (error) {
      this.#sources.delete(key);
      throw error;
    }
  }

  async #open(flags: number, source: number): Promise<Source> {
    const path =
      flags & ExtentFlag.backward
        ? `${this.#paths.backward}/${objectName(source)}`
        : await this.#segmentPath(source);
    return { file: await this.#files.open(path, 'read'), reader: null, users: 0 };
  }

  async #segmentPath(segment: number): Promise<string> {
    const found = segmentsOf(await this.#files.list(this.#paths.forward)).find(
      (place) => place.segment === segment,
    );
    if (found !== undefined) return `${this.#paths.forward}/${found.name}`;
    throw new MidmirrorError('not-found', `segment ${segment} is not in ${this.#paths.forward}`);
  }

  #reader(flags: number, source: Source): Promise<SegmentReader | ObjectReader> {
    source.reader ??=
      flags & ExtentFlag.backward ? ObjectReader.open(source.file) : SegmentReader.open(source.file);
    return source.reader;
  }

  async #makeRoom(): Promise<void> {
    for (const [key, source] of this.#ready) {
      if (this.#sources.size < OPEN_SOURCES_MAX) return;
      if (source.users > 0) continue;
      this.#sources.delete(key);
      this.#ready.delete(key);
      await source.file.close();
    }
  }
}

function sourceKey(flags: number, source: number): number {
  return flags & ExtentFlag.backward ? source + 2 ** 33 : source;
}
