// The ring of segment files: which are live, which are free, the next one prepared ahead of need. A segment is
// recycled, not deleted: renamed to its next number, header rewritten, both durable, before a batch goes in.
import { MidmirrorError } from '@midmirror/basis';
import { encodeSegmentHeader, Format } from '@midmirror/journal';
import { type PoolFile, type PoolFiles, segmentName, writeZeroes } from '@midmirror/pool';
import { limits } from './limits.ts';
import { RingSegment } from './ring-segment.ts';

export interface RingConfig {
  files: PoolFiles;
  directory: string;
  volumeId: string;
  epoch: number;
  segmentBytes: number;
  segmentsMax: number;
  /** Free files are used again in the order of their numbers, so that no gap comes between those that are left: for
   *  a ring whose recovery can't tell the free ones from the live (a clone's; they hold nothing that is not newer
   *  elsewhere). */
  oldestFirst: boolean;
  /** False: its writer may still wake up and write to the file, so it is not written to by another. */
  mayReuse: (segment: RingSegment) => boolean;
}

export class SegmentRing {
  readonly config: RingConfig;
  /** Live segments by number, ascending; the last is the active one. */
  readonly live = new Map<number, RingSegment>();
  /** Files free for reuse, by their present name. */
  readonly #free: string[];
  readonly #prepared: RingSegment[] = [];
  /** How many segments to keep ready; grows when a writer had to wait for one. */
  #ahead: number = limits.segmentsAheadMin;
  #nextNumber: number;

  constructor(config: RingConfig, free: string[], nextNumber: number) {
    this.config = config;
    this.#free = free;
    this.#nextNumber = nextNumber;
  }

  /** Segments in use to segments allowed. */
  get share(): number {
    return this.live.size / this.config.segmentsMax;
  }

  get bytesUsed(): number {
    let used = 0;
    for (const segment of this.live.values())
      used += segment.sealed ? this.config.segmentBytes : segment.writeOffset;
    return used;
  }

  get bytesMax(): number {
    return this.config.segmentsMax * this.config.segmentBytes;
  }

  /** A segment is ready, so the journal can go on. */
  get hasPrepared(): boolean {
    return this.#prepared.length > 0;
  }

  /** The next prepared segment becomes live; null when none is ready. */
  takePrepared(): RingSegment | null {
    const segment = this.#prepared.shift();
    if (segment === undefined) {
      this.#ahead = Math.min(this.#ahead * 2, limits.segmentsAheadMax);
      return null;
    }
    this.live.set(segment.number, segment);
    return segment;
  }

  /** Readies segments ahead of need, durably, those missing all at once. Throws `no-space` when the disk is full. */
  async prepare(): Promise<void> {
    const allowed = this.config.segmentsMax - this.live.size;
    const missing = Math.min(this.#ahead, allowed) - this.#prepared.length;
    if (missing <= 0 || this.#prepared.length > this.#ahead / 2) return;
    const numbers = Array.from({ length: missing }, () => this.#nextNumber++);
    // With time in hand, new files are written once: the first fdatasync of a block that was only reserved takes
    // twice as long (220 µs against 105, measured), for the file system must note that it is written now.
    const unhurried =
      this.#prepared.length > 0 && this.live.size > 1 && this.#ahead === limits.segmentsAheadMin;
    const files = await Promise.allSettled(numbers.map((number) => this.#readyFile(number, unhurried)));
    await this.config.files.syncDirectory(this.config.directory);
    // The name before the header: a new header under an old name would make the old batches look orphaned.
    await Promise.all(
      files.map((file, i) =>
        file.status === 'fulfilled' ? this.#writeHeader(file.value, numbers[i]!) : null,
      ),
    );
    for (const [i, file] of files.entries()) {
      if (file.status === 'fulfilled') {
        this.#prepared.push(
          new RingSegment(numbers[i]!, this.config.epoch, file.value, Format.segmentHeaderBytes),
        );
      }
    }
    const failed = files.find((file) => file.status === 'rejected');
    if (failed !== undefined && this.#prepared.length === 0) throw failed.reason;
  }

  async #readyFile(number: number, writeNew: boolean): Promise<PoolFile> {
    const { files, directory, epoch, segmentBytes } = this.config;
    const path = `${directory}/${segmentName(epoch, number)}`;
    // The one that was freed last: its pages are the likeliest to be in memory still.
    const reused = this.config.oldestFirst ? this.#free.shift() : this.#free.pop();
    if (reused === undefined) return await createSegmentFile(files, path, segmentBytes, writeNew);
    await files.rename(`${directory}/${reused}`, path);
    return await files.open(path, 'write');
  }

  async #writeHeader(file: PoolFile, segment: number): Promise<void> {
    const { volumeId, epoch, segmentBytes } = this.config;
    await file.writev([encodeSegmentHeader({ volumeId, epoch, segment, segmentBytes })], 0);
    await file.datasync();
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
    if (this.config.mayReuse(segment)) this.#free.push(segment.name);
    else await this.config.files.unlink(`${this.config.directory}/${segment.name}`);
  }

  async close(): Promise<void> {
    for (const segment of this.#prepared) await segment.file.close();
    for (const segment of this.live.values()) await segment.file.close();
  }
}

/** All space is reserved at once: a full disk shows here, before any write is taken, and nothing is left behind. */
async function createSegmentFile(
  files: PoolFiles,
  path: string,
  segmentBytes: number,
  write: boolean,
): Promise<PoolFile> {
  const file = await files.open(path, 'create');
  try {
    await file.allocate(segmentBytes);
    if (write) await writeOnce(file, segmentBytes);
    return file;
  } catch (error) {
    await file.close();
    await files.unlink(path);
    if (error instanceof MidmirrorError) throw error;
    throw new MidmirrorError('io', `can't prepare the segment ${path}`, { cause: error });
  }
}

/** In slices that are synced one by one, so that a guest's flush waits for one of them at most. */
async function writeOnce(file: PoolFile, lengthBytes: number): Promise<void> {
  for (let at = 0; at < lengthBytes; at += limits.zeroSliceBytes) {
    await writeZeroes(file, at, Math.min(limits.zeroSliceBytes, lengthBytes - at));
    await file.datasync();
  }
}
