// What a check writes to its own copy of a moment: kept beside the mirror, in a file that has no name, so that nothing of it is
// there after the check, however that ends. The mirror is never written, and nothing is made on the appliance.
import { randomUUID } from 'node:crypto';
import { close, type NoParamCallback, openSync, read, statfsSync, unlinkSync, writev } from 'node:fs';
import { promisify } from 'node:util';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type AllocationExtent, type BlockDevice, Errno, type WriteCommand } from '@midmirror/block-device';
import { ExtentFlag, ExtentMap } from '@midmirror/extent-map';
import { runnerLimits } from '../limits.ts';

const readFile = promisify(read);
const closeFile = promisify(close);

/** Of all connections of one check together. */
export class WrittenOver {
  readonly #file: number;
  /** In the file data lie where they lie on the disk. */
  readonly #map = new ExtentMap();
  readonly #folder: string;
  readonly #bytesMax: number;
  #bytes = 0;
  /** When it was looked last how much is left there, and what was found. */
  #lookedAtBytes = 0;
  #isFull = false;

  /** `folder`: on a file system with room for what is written. */
  constructor(folder: string, bytesMax: number) {
    const path = `${folder}/${randomUUID()}`;
    this.#file = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    this.#folder = folder;
    this.#bytesMax = bytesMax;
  }

  get file(): number {
    return this.#file;
  }

  /** Parts of a range in order, each wholly written, wholly zeroed, or as the mirror has it. */
  *parts(startBytes: number, lengthBytes: number): Generator<Part> {
    const end = startBytes + lengthBytes;
    const found: Part[] = [];
    // Taken out first: the map may change while a part is read.
    for (const at = this.#map.cursor(startBytes); at.valid && at.start < end; at.next()) {
      const from = Math.max(at.start, startBytes);
      const kind = (at.flags & ExtentFlag.zero) === 0 ? 'written' : 'zero';
      found.push({ kind, startBytes: from, lengthBytes: Math.min(at.end, end) - from });
    }
    let from = startBytes;
    for (const part of found) {
      if (part.startBytes > from)
        yield { kind: 'mirror', startBytes: from, lengthBytes: part.startBytes - from };
      yield part;
      from = part.startBytes + part.lengthBytes;
    }
    if (from < end) yield { kind: 'mirror', startBytes: from, lengthBytes: end - from };
  }

  zero(startBytes: number, lengthBytes: number): void {
    this.#map.put(startBytes, lengthBytes, ExtentFlag.zero, 0, 0, 0);
  }

  write(startBytes: number, lengthBytes: number, pieces: readonly Uint8Array[], done: NoParamCallback): void {
    if (!this.#hasRoom(lengthBytes)) {
      done(
        Object.assign(new Error('it wrote more than is possible, or than there is room for'), {
          code: 'ENOSPC',
        }),
      );
      return;
    }
    writev(this.#file, pieces, startBytes, (error, written) => {
      if (error === null && written === lengthBytes) this.#map.put(startBytes, lengthBytes, 0, 0, 0, 0);
      done(error ?? (written === lengthBytes ? null : new Error('written in part only')));
    });
  }

  async close(): Promise<void> {
    await closeFile(this.#file);
  }

  /** Written twice counts twice: it is a bound, and need not be exact. */
  #hasRoom(lengthBytes: number): boolean {
    this.#bytes += lengthBytes;
    const { scratchBytesSmall, scratchFreeBytesMin } = runnerLimits;
    if (this.#bytes - this.#lookedAtBytes > scratchBytesSmall) {
      this.#lookedAtBytes = this.#bytes;
      const { bavail, bsize } = statfsSync(this.#folder);
      this.#isFull = bavail * bsize < scratchFreeBytesMin;
    }
    return this.#bytes <= this.#bytesMax && !this.#isFull;
  }
}

interface Part {
  kind: 'written' | 'zero' | 'mirror';
  startBytes: number;
  lengthBytes: number;
}

/** One connection's view. */
export class WrittenDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly = false;
  readonly #mirror: BlockDevice;
  readonly #over: WrittenOver;

  constructor(mirror: BlockDevice, over: WrittenOver) {
    this.#mirror = mirror;
    this.#over = over;
    this.sizeBytes = mirror.sizeBytes;
  }

  tryRead(): boolean {
    return false;
  }

  async read(
    startBytes: number,
    lengthBytes: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    for (const part of this.#over.parts(startBytes, lengthBytes)) {
      const at = targetOffset + part.startBytes - startBytes;
      if (part.kind === 'zero') target.fill(0, at, at + part.lengthBytes);
      else if (part.kind === 'mirror') await this.#mirror.read(part.startBytes, part.lengthBytes, target, at);
      else await this.#readWritten(part, target, at);
    }
  }

  async #readWritten({ startBytes, lengthBytes }: Part, target: Uint8Array, at: number): Promise<void> {
    const { bytesRead } = await readFile(this.#over.file, target, at, lengthBytes, startBytes).catch(
      (cause: unknown) => {
        throw new MidmirrorError('io', `what was written can't be read: ${messageOf(cause)}`, { cause });
      },
    );
    if (bytesRead !== lengthBytes) throw new MidmirrorError('io', 'what was written is not there any more');
  }

  submit(command: WriteCommand): void {
    const { kind, startBytes, lengthBytes, payload, payloadCount } = command;
    if (kind !== 'write') {
      this.#over.zero(startBytes, lengthBytes);
      command.complete(Errno.ok);
      return;
    }
    this.#over.write(startBytes, lengthBytes, payload.slice(0, payloadCount), (error) => {
      const isFull = error?.code === 'ENOSPC';
      command.complete(error === null ? Errno.ok : isFull ? Errno.ENOSPC : Errno.EIO);
    });
  }

  kick(): void {}

  /** Nothing of it has to outlive anything. */
  async flush(): Promise<void> {}

  async allocation(startBytes: number, lengthBytes: number, extentsMax: number): Promise<AllocationExtent[]> {
    const extents: AllocationExtent[] = [];
    for (const part of this.#over.parts(startBytes, lengthBytes)) {
      if (extents.length >= extentsMax) break;
      if (part.kind !== 'mirror') {
        extents.push({ lengthBytes: part.lengthBytes, hole: part.kind === 'zero' });
        continue;
      }
      const left = extentsMax - extents.length;
      const told = await this.#mirror.allocation(part.startBytes, part.lengthBytes, left);
      let covered = 0;
      for (const { lengthBytes: length, hole } of told) {
        const within = Math.min(length, part.lengthBytes - covered);
        if (within > 0) extents.push({ lengthBytes: within, hole });
        covered += within;
      }
      if (covered < part.lengthBytes) break;
    }
    return extents;
  }
}
