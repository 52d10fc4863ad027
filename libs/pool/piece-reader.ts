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
  /** Closed by the last one who reads it. */
  forgotten: boolean;
}

/** What an extent names can't be read: its file is gone or another one by now, or damaged. */
export class LostPieceError extends MidmirrorError {
  readonly backward: boolean;
  readonly source: number;

  constructor(flags: number, source: number, cause: MidmirrorError) {
    const { code, message, hint, details } = cause;
    super(code, message, { cause, details, ...(hint === undefined ? {} : { hint }) });
    this.backward = (flags & ExtentFlag.backward) !== 0;
    this.source = source;
  }
}

/** The error as one of a piece, if it is. */
function asLostPiece(error: unknown, flags: number, source: number): unknown {
  const lost = error instanceof MidmirrorError && (error.code === 'corrupt' || error.code === 'not-found');
  return lost && !(error instanceof LostPieceError) ? new LostPieceError(flags, source, error) : error;
}

/** Where an extent's bytes lie. */
interface Piece {
  flags: number;
  source: number;
  offset: number;
  length: number;
  crc: number;
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
   * checksum of `extentLength` bytes from `offset - skip` on, and the read needs no other record. Throws
   * LostPieceError when the file is gone, is another one, or fails its checksums.
   */
  async read(
    extent: Piece,
    skip: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    try {
      await this.#using(extent.flags, extent.source, (source) =>
        this.#read(source, extent, skip, length, target, targetOffset),
      );
    } catch (error) {
      throw asLostPiece(error, extent.flags, extent.source);
    }
  }

  async #read(
    source: Source,
    extent: Piece,
    skip: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
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
    const reader = await this.#reader(extent.flags, extent.source, source);
    await reader.read(extent.offset + skip, length, target, targetOffset);
  }

  async #using<T>(flags: number, source: number, act: (source: Source) => Promise<T>): Promise<T> {
    let open = await this.#source(flags, source);
    while (open.forgotten) open = await this.#source(flags, source);
    open.users += 1;
    try {
      return await act(open);
    } finally {
      open.users -= 1;
      if (open.forgotten && open.users === 0) await open.file.close();
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
    return (await this.#reader(0, segment, source)) as SegmentReader;
  }

  /**
   * What `act` makes of a segment; of the file that has its name now, if it was opened before another took its place (a
   * takeover copies what was not sealed) and `act` finds it wanting. Throws LostPieceError.
   */
  async inSegment<T>(segment: number, act: (reader: SegmentReader) => Promise<T>): Promise<T> {
    const once = (): Promise<T> =>
      this.#using(0, segment, async (source) =>
        act((await this.#reader(0, segment, source)) as SegmentReader),
      );
    try {
      return await once();
    } catch (error) {
      if (!(asLostPiece(error, 0, segment) instanceof LostPieceError)) throw error;
    }
    await this.forget(false, segment);
    try {
      return await once();
    } catch (error) {
      throw asLostPiece(error, 0, segment);
    }
  }

  /** Forgets a file that is about to be recycled or deleted. */
  async forget(backward: boolean, source: number): Promise<void> {
    const key = sourceKey(backward ? ExtentFlag.backward : 0, source);
    const open = this.#sources.get(key);
    this.#sources.delete(key);
    this.#ready.delete(key);
    if (open === undefined) return;
    const found = await open.catch(() => null);
    if (found === null) return;
    found.forgotten = true;
    if (found.users === 0) await found.file.close();
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
    return { file: await this.#files.open(path, 'read'), reader: null, users: 0, forgotten: false };
  }

  async #segmentPath(segment: number): Promise<string> {
    const found = segmentsOf(await this.#files.list(this.#paths.forward)).find(
      (place) => place.segment === segment,
    );
    if (found !== undefined) return `${this.#paths.forward}/${found.name}`;
    throw new MidmirrorError('not-found', `segment ${segment} is not in ${this.#paths.forward}`);
  }

  #reader(flags: number, number: number, source: Source): Promise<SegmentReader | ObjectReader> {
    source.reader ??=
      flags & ExtentFlag.backward ? ObjectReader.open(source.file) : openSegment(source.file, number);
    return source.reader;
  }

  async #makeRoom(): Promise<void> {
    for (const [key, source] of this.#ready) {
      if (this.#sources.size < OPEN_SOURCES_MAX) return;
      if (source.users > 0) continue;
      source.forgotten = true;
      this.#sources.delete(key);
      this.#ready.delete(key);
      await source.file.close();
    }
  }
}

/** Between the look at the names and the opening the file may have got another number. */
async function openSegment(file: PoolFile, segment: number): Promise<SegmentReader> {
  const reader = await SegmentReader.open(file);
  if (reader.header.segment === segment) return reader;
  throw new MidmirrorError(
    'not-found',
    `${file.path} holds segment ${reader.header.segment}, not ${segment}`,
  );
}

function sourceKey(flags: number, source: number): number {
  return flags & ExtentFlag.backward ? source + 2 ** 33 : source;
}
