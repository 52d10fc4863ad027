// The ring of segment files: which are live, which are free, the next one prepared ahead of need. A segment is
// recycled, not deleted: renamed to its next number, header rewritten, both durable, before a batch goes in.
import { MidmirrorError } from '@midmirror/basis';
import { encodeSegmentHeader, Format } from '@midmirror/journal';
import { type PoolFile, type PoolFiles, segmentName } from '@midmirror/pool';
import { RingSegment } from './ring-segment.ts';

export interface RingConfig {
  files: PoolFiles;
  directory: string;
  volumeId: string;
  epoch: number;
  segmentBytes: number;
  segmentsMax: number;
}

export class SegmentRing {
  readonly config: RingConfig;
  /** Live segments by number, ascending; the last is the active one. */
  readonly live = new Map<number, RingSegment>();
  /** Files free for reuse, by their present name. */
  readonly #free: string[];
  #prepared: RingSegment | null = null;
  #nextNumber: number;

  constructor(config: RingConfig, free: string[], nextNumber: number) {
    this.config = config;
    this.#free = free;
    this.#nextNumber = nextNumber;
  }

  get segmentCount(): number {
    return this.live.size;
  }

  get bytesUsed(): number {
    let used = 0;
    for (const segment of this.live.values()) used += segment.sealed ? this.config.segmentBytes : segment.writeOffset;
    return used;
  }

  get bytesMax(): number {
    return this.config.segmentsMax * this.config.segmentBytes;
  }

  /** Whether the limit allows one more segment beside the live ones. */
  get mayGrow(): boolean {
    return this.live.size < this.config.segmentsMax;
  }

  get hasPrepared(): boolean {
    return this.#prepared !== null;
  }

  /** The prepared segment becomes live; null when none is ready. */
  takePrepared(): RingSegment | null {
    const segment = this.#prepared;
    if (segment === null) return null;
    this.#prepared = null;
    this.live.set(segment.number, segment);
    return segment;
  }

  /** Readies the next segment, durably. Throws `no-space` when the disk is full. */
  async prepare(): Promise<void> {
    if (this.#prepared !== null || !this.mayGrow) return;
    const { files, directory, volumeId, epoch, segmentBytes } = this.config;
    const number = this.#nextNumber;
    const path = `${directory}/${segmentName(epoch, number)}`;
    const reused = this.#free.shift();
    let file: PoolFile;
    if (reused !== undefined) {
      await files.rename(`${directory}/${reused}`, path);
      file = await files.open(path, 'write');
    } else {
      file = await createSegmentFile(files, path, segmentBytes);
    }
    await file.writev([encodeSegmentHeader({ volumeId, epoch, segment: number, segmentBytes })], 0);
    await file.datasync();
    await files.syncDirectory(directory);
    this.#nextNumber += 1;
    this.#prepared = new RingSegment(number, epoch, file, Format.segmentHeaderBytes);
  }

  /** Takes a sealed segment out of the ring once nobody reads it. */
  async recycle(segment: RingSegment): Promise<void> {
    this.live.delete(segment.number);
    if (segment.readers > 0) {
      await new Promise<void>((resolve) => {
        segment.whenUnused = resolve;
      });
    }
    await segment.file.close();
    this.#free.push(segment.name);
  }

  async close(): Promise<void> {
    if (this.#prepared !== null) await this.#prepared.file.close();
    for (const segment of this.live.values()) await segment.file.close();
  }
}

/** All space is reserved at once: a full disk shows here, before any write is taken, and nothing is left behind. */
async function createSegmentFile(files: PoolFiles, path: string, segmentBytes: number): Promise<PoolFile> {
  const file = await files.open(path, 'create');
  try {
    await file.allocate(segmentBytes);
    return file;
  } catch (error) {
    await file.close();
    await files.unlink(path);
    if (error instanceof MidmirrorError) throw error;
    throw new MidmirrorError('io', `can't prepare the segment ${path}`, { cause: error });
  }
}
