// The mirror in the middle: a sparse file of the volume's size, and beside it which 64 KiB granules may hold
// data (mim.alloc), so that holes stay holes. A granule is marked, durably, before its first byte is written;
// a damaged page of marks counts as all marked, which is always right, only less sparse.
import { checksumOf, decodeMimState, encodeMimState, type MimState } from '@midmirror/journal';
import { type PoolFile, type PoolFiles, readWhole, writeZeroes } from './files.ts';
import type { VolumePaths } from './layout.ts';

export const GRANULE_BYTES = 64 * 1024;
const PAGE_BYTES = 4096;
const PAGE_GRANULES = (PAGE_BYTES - 4) * 8;
/** A run of zeroes at least this long is given back to the file system rather than written. */
const PUNCH_BYTES_MIN = 1 << 20;

/** `createdNs` is the time of the MIM's first point: the empty volume. */
export async function createMim(
  files: PoolFiles,
  paths: VolumePaths,
  sizeBytes: number,
  createdNs: bigint,
): Promise<void> {
  for (const path of [paths.mimImage, paths.mimAllocation, paths.mimState]) {
    if (await files.exists(path)) await files.unlink(path);
  }
  const image = await files.open(paths.mimImage, 'create');
  await image.truncate(sizeBytes);
  await image.datasync();
  await image.close();
  const pages = Math.ceil(sizeBytes / GRANULE_BYTES / PAGE_GRANULES);
  const bytes = new Uint8Array(pages * PAGE_BYTES);
  for (let page = 0; page < pages; page += 1) sealPage(bytes, page);
  const allocation = await files.open(paths.mimAllocation, 'create');
  await allocation.writev([bytes], 0);
  await allocation.datasync();
  await allocation.close();
  // Both slots are written, so that a damaged one never leaves none.
  const state = await files.open(paths.mimState, 'create');
  for (const generation of [1, 2]) {
    const slot = encodeMimState({
      generation,
      epoch: 0,
      mimSeq: 0,
      mimNs: createdNs,
      syncId: 0,
      targetSeq: 0,
    });
    await state.writev([slot.bytes], slot.offset);
  }
  await state.datasync();
  await state.close();
  await files.syncDirectory(paths.directory);
}

/** Which granules may hold data. */
export class MimAllocation {
  readonly #pages: Uint8Array;
  readonly dirtyPages = new Set<number>();
  /** Pages that failed their checksum when read; they count as full of data. */
  readonly damagedPages: number[] = [];

  constructor(pages: Uint8Array) {
    this.#pages = pages;
    for (let page = 0; page * PAGE_BYTES < pages.length; page += 1) {
      const crc = new DataView(pages.buffer, pages.byteOffset + page * PAGE_BYTES, 4).getUint32(0, true);
      if (checksumOf(pages, page * PAGE_BYTES + 4, PAGE_BYTES - 4) !== crc) {
        this.damagedPages.push(page);
        pages.fill(255, page * PAGE_BYTES + 4, (page + 1) * PAGE_BYTES);
      }
    }
  }

  static async load(files: PoolFiles, paths: VolumePaths): Promise<MimAllocation> {
    return new MimAllocation((await readWhole(files, paths.mimAllocation, 1 << 30)).slice());
  }

  has(granule: number): boolean {
    const { byte, bit } = place(granule);
    return ((this.#pages[byte] ?? 255) & bit) !== 0;
  }

  set(granule: number, value: boolean): void {
    const { byte, bit, page } = place(granule);
    const before = this.#pages[byte]!;
    const after = value ? before | bit : before & ~bit;
    if (after === before) return;
    this.#pages[byte] = after;
    this.dirtyPages.add(page);
  }

  /** Whether anything in the range may hold data. */
  any(start: number, length: number): boolean {
    const last = Math.floor((start + length - 1) / GRANULE_BYTES);
    for (let granule = Math.floor(start / GRANULE_BYTES); granule <= last; granule += 1) {
      if (this.has(granule)) return true;
    }
    return false;
  }

  /** Length, at most `length`, from `start` on, over which `hole` does not change. */
  span(start: number, length: number): { lengthBytes: number; hole: boolean } {
    let granule = Math.floor(start / GRANULE_BYTES);
    const hole = !this.has(granule);
    let end = (granule + 1) * GRANULE_BYTES;
    while (end < start + length && this.has(granule + 1) !== hole) {
      granule += 1;
      end += GRANULE_BYTES;
    }
    return { lengthBytes: Math.min(end, start + length) - start, hole };
  }

  /** Marks a granule, and has its page written whatever it said before. */
  mark(granule: number): void {
    this.set(granule, true);
    this.dirtyPages.add(place(granule).page);
  }

  pageBytes(page: number): Uint8Array {
    sealPage(this.#pages, page);
    return this.#pages.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  }
}

function place(granule: number): { byte: number; bit: number; page: number } {
  const page = Math.floor(granule / PAGE_GRANULES);
  const within = granule % PAGE_GRANULES;
  return { byte: page * PAGE_BYTES + 4 + (within >>> 3), bit: 1 << (within & 7), page };
}

function sealPage(pages: Uint8Array, page: number): void {
  const crc = checksumOf(pages, page * PAGE_BYTES + 4, PAGE_BYTES - 4);
  new DataView(pages.buffer, pages.byteOffset + page * PAGE_BYTES, 4).setUint32(0, crc, true);
}

/** The one writer of a MIM: a sync. Marks, writes, zeroes; durable after `sync`. */
export class MimWriter {
  readonly allocation: MimAllocation;
  readonly #image: PoolFile;
  readonly #allocationFile: PoolFile;
  #cleared: number[] = [];

  private constructor(image: PoolFile, allocationFile: PoolFile, allocation: MimAllocation) {
    this.#image = image;
    this.#allocationFile = allocationFile;
    this.allocation = allocation;
  }

  static async open(files: PoolFiles, paths: VolumePaths): Promise<MimWriter> {
    return new MimWriter(
      await files.open(paths.mimImage, 'write'),
      await files.open(paths.mimAllocation, 'write'),
      await MimAllocation.load(files, paths),
    );
  }

  read(target: Uint8Array, targetOffset: number, length: number, position: number): Promise<number> {
    return this.#image.read(target, targetOffset, length, position);
  }

  /**
   * Marks the granules of these ranges (start, length, start, length, …) as holding data, durably. Marks that are
   * there already are written again: a process that died, or an fdatasync that failed, may have left them in the
   * page cache only.
   */
  async mark(ranges: readonly number[]): Promise<void> {
    for (let i = 0; i < ranges.length; i += 2) {
      const last = Math.floor((ranges[i]! + ranges[i + 1]! - 1) / GRANULE_BYTES);
      for (let granule = Math.floor(ranges[i]! / GRANULE_BYTES); granule <= last; granule += 1) {
        this.allocation.mark(granule);
      }
    }
    await this.#writeMarks();
  }

  write(buffers: readonly Uint8Array[], position: number): Promise<void> {
    return this.#image.writev(buffers, position);
  }

  /** Makes a range read as zeroes, and a hole where it can. */
  async zero(start: number, length: number): Promise<void> {
    const end = start + length;
    let at = start;
    while (at < end) {
      const { lengthBytes, hole } = this.allocation.span(at, end - at);
      if (!hole) await this.#zeroAllocated(at, lengthBytes);
      at += lengthBytes;
    }
  }

  /** What was written is on stable storage; granules that were zeroed whole lose their marks after that. */
  async sync(): Promise<void> {
    await this.#image.datasync();
    for (const granule of this.#cleared) this.allocation.set(granule, false);
    this.#cleared = [];
    await this.#writeMarks();
  }

  async close(): Promise<void> {
    await this.#image.close();
    await this.#allocationFile.close();
  }

  async #zeroAllocated(start: number, length: number): Promise<void> {
    const firstWhole = Math.ceil(start / GRANULE_BYTES);
    const endWhole = Math.floor((start + length) / GRANULE_BYTES);
    for (let granule = firstWhole; granule < endWhole; granule += 1) this.#cleared.push(granule);
    if (length >= PUNCH_BYTES_MIN && (await this.#image.punchHole(start, length))) return;
    await writeZeroes(this.#image, start, length);
  }

  async #writeMarks(): Promise<void> {
    if (this.allocation.dirtyPages.size === 0) return;
    for (const page of this.allocation.dirtyPages) {
      await this.#allocationFile.writev([this.allocation.pageBytes(page)], page * PAGE_BYTES);
    }
    this.allocation.dirtyPages.clear();
    await this.#allocationFile.datasync();
  }
}

export async function readMimState(files: PoolFiles, paths: VolumePaths): Promise<MimState | null> {
  return decodeMimState(await readWhole(files, paths.mimState, 1 << 16));
}

/** Writes the change durably, to one slot and then to the other: whichever is damaged later, the other says the same. */
export async function writeMimState(
  files: PoolFiles,
  paths: VolumePaths,
  previous: MimState,
  change: Partial<Omit<MimState, 'generation'>>,
): Promise<MimState> {
  let state = previous;
  const file = await files.open(paths.mimState, 'write');
  try {
    for (let copy = 0; copy < 2; copy += 1) {
      state = { ...state, ...change, generation: state.generation + 1 };
      const slot = encodeMimState(state);
      await file.writev([slot.bytes], slot.offset);
      await file.datasync();
    }
  } finally {
    await file.close();
  }
  return state;
}
