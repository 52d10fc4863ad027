// A mirror: the volume as it was at one point, read-only. Reads take the extent that its VRMO names, else the
// MIM. When a sync is about to change the MIM, the VRMO changes first, and reads begun before are waited for.
import { MidmirrorError } from '@midmirror/basis';
import {
  type AllocationExtent,
  type BlockDevice,
  Errno,
  readPacer,
  type WriteCommand,
} from '@midmirror/block-device';
import { ExtentFlag } from '@midmirror/extent-map';
import type { MimImage, PieceReader } from '@midmirror/pool';
import type { Vrmo } from '@midmirror/vrmo';

interface Part {
  start: number;
  length: number;
  /** Null: on the MIM. */
  extent: { flags: number; source: number; offset: number; length: number; crc: number } | null;
  skip: number;
}

/** Reads that began under one VRMO. */
interface Readers {
  count: number;
  ended: (() => void) | null;
}

const SCRATCH = new Uint8Array(64 << 10);

export class Mirror implements BlockDevice {
  readonly sizeBytes: number;
  readonly readOnly = true;
  readonly seq: number;
  readonly #mim: MimImage;
  readonly #pieces: PieceReader;
  readonly #pacer = readPacer();
  #vrmo: Vrmo;
  #readers: Readers = { count: 0, ended: null };

  constructor(seq: number, sizeBytes: number, vrmo: Vrmo, mim: MimImage, pieces: PieceReader) {
    this.seq = seq;
    this.sizeBytes = sizeBytes;
    this.#vrmo = vrmo;
    this.#mim = mim;
    this.#pieces = pieces;
  }

  get vrmo(): Vrmo {
    return this.#vrmo;
  }

  /** From now on reads go by `vrmo` (the old one when changed in place). Resolves when older reads have ended. */
  async switchTo(vrmo: Vrmo): Promise<void> {
    this.#vrmo = vrmo;
    const before = this.#readers;
    this.#readers = { count: 0, ended: null };
    if (before.count > 0) {
      await new Promise<void>((resolve) => {
        before.ended = resolve;
      });
    }
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#pacer.tryNow(() => this.#readNow(start, length, target, targetOffset));
  }

  async read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    const readers = this.#readers;
    readers.count += 1;
    try {
      for (const part of this.#parts(start, length)) {
        const to = targetOffset + part.start - start;
        if (part.extent === null) await this.#mim.read(part.start, part.length, target, to);
        else if (part.extent.flags & ExtentFlag.zero) target.fill(0, to, to + part.length);
        else await this.#pieces.read(part.extent, part.skip, part.length, target, to);
      }
    } finally {
      readers.count -= 1;
      if (readers.count === 0) readers.ended?.();
    }
  }

  submit(command: WriteCommand): void {
    command.complete(Errno.EPERM);
  }

  kick(): void {}

  async flush(): Promise<void> {}

  async allocation(start: number, length: number, extentsMax: number): Promise<AllocationExtent[]> {
    const extents: AllocationExtent[] = [];
    const end = start + length;
    for (let at = start; at < end; ) {
      const { lengthBytes, hole } = this.span(at, end - at);
      const last = extents.at(-1);
      if (last?.hole === hole) last.lengthBytes += lengthBytes;
      else if (extents.length === extentsMax) break;
      else extents.push({ lengthBytes, hole });
      at += lengthBytes;
    }
    return extents;
  }

  /** Length, at most `length`, from `start` on, that is of one kind. */
  span(start: number, length: number): { lengthBytes: number; hole: boolean } {
    const end = start + length;
    const cursor = this.#vrmo.cursor(start);
    if (cursor.valid && cursor.start <= start) {
      return { lengthBytes: Math.min(cursor.end, end) - start, hole: (cursor.flags & ExtentFlag.zero) !== 0 };
    }
    return this.#mim.span(start, (cursor.valid ? Math.min(cursor.start, end) : end) - start);
  }

  #readNow(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    const end = start + length;
    const c = this.#vrmo.cursor(start);
    for (let at = start; at < end; ) {
      const to = targetOffset + at - start;
      if (!c.valid || c.start > at) {
        const until = c.valid ? Math.min(c.start, end) : end;
        if (!this.#mim.tryRead(at, until - at, target, to)) return false;
        at = until;
        continue;
      }
      const until = Math.min(c.end, end);
      if (c.flags & ExtentFlag.zero) target.fill(0, to, to + until - at);
      else if (at === c.start && until === c.end) {
        if (!this.#pieces.tryRead(c.flags, c.source, c.offset, c.length, c.crc, target, to)) return false;
      } else {
        if (!this.#pieces.tryRead(c.flags, c.source, c.offset, c.length, c.crc, SCRATCH, 0)) return false;
        target.set(SCRATCH.subarray(at - c.start, until - c.start), to);
      }
      at = until;
      c.next();
    }
    return true;
  }

  #parts(start: number, length: number): Part[] {
    const parts: Part[] = [];
    const end = start + length;
    const c = this.#vrmo.cursor(start);
    for (let at = start; at < end; ) {
      if (!c.valid || c.start > at) {
        const until = c.valid ? Math.min(c.start, end) : end;
        parts.push({ start: at, length: until - at, extent: null, skip: 0 });
        at = until;
        continue;
      }
      const until = Math.min(c.end, end);
      const { flags, source, offset, crc } = c;
      parts.push({
        start: at,
        length: until - at,
        extent: { flags, source, offset, length: c.length, crc },
        skip: at - c.start,
      });
      at = until;
      c.next();
    }
    return parts;
  }
}

export function refuseOutside(sizeBytes: number, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length > 0;
  if (whole && offset + length <= sizeBytes) return;
  throw new MidmirrorError(
    'bad-request',
    `offset ${offset} with length ${length} does not lie in the volume`,
    {
      hint: `the volume is ${sizeBytes} bytes long`,
    },
  );
}
