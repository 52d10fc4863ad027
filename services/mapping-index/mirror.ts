// A mirror: the volume as it was at one point, read-only. Reads take the extent that its places name, else the
// MIM. When a sync is about to change the MIM, the places change first, and reads begun before are waited for. Of a sync
// that it has not heard of (the bus was away, the process slept) it learns by mim.state, before what it took from the MIM
// counts: then it takes the places that are right by now, and reads again.
import { MidmirrorError } from '@midmirror/basis';
import { RunGoneError } from '@midmirror/catalog';
import {
  type AllocationExtent,
  type BlockDevice,
  Errno,
  readPacer,
  type WriteCommand,
} from '@midmirror/block-device';
import { ExtentFlag } from '@midmirror/extent-map';
import { LostPieceError, type MimImage, type MimWatch, type PieceReader } from '@midmirror/pool';
import type { PlaceCursor } from '@midmirror/vrmo';
import { limits } from './limits.ts';
import type { Places } from './places.ts';
import type { Place, Placed } from './point-difference.ts';

interface Part {
  start: number;
  length: number;
  /** Null: on the MIM. */
  extent: { flags: number; source: number; offset: number; length: number; crc: number } | null;
  skip: number;
}

/** Reads that began under the same places. */
interface Readers {
  count: number;
  ended: (() => void) | null;
}

/** What a mirror reads from. */
export interface MirrorSources {
  mim: MimImage;
  watch: MimWatch;
  pieces: PieceReader;
  /**
   * Takes the places that are right now, unless that has been done since `generation`. With a piece that could not be
   * read: only if nothing should name it any more. False: the places stay.
   */
  renew: (generation: number, lost: LostPieceError | null) => Promise<boolean>;
}

/** Places of a point, and the newest write that may be on the MIM while they are right. */
export interface Prepared {
  places: Places;
  safeToSeq: number;
}

const SCRATCH = new Uint8Array(64 << 10);

export class Mirror implements BlockDevice, Placed {
  readonly sizeBytes: number;
  readonly readOnly = true;
  readonly seq: number;
  readonly #from: MirrorSources;
  readonly #pacer = readPacer();
  #places: Places;
  #safeToSeq: number;
  #generation = 0;
  #readers: Readers = { count: 0, ended: null };

  constructor(seq: number, sizeBytes: number, prepared: Prepared, from: MirrorSources) {
    this.seq = seq;
    this.sizeBytes = sizeBytes;
    this.#places = prepared.places;
    this.#safeToSeq = prepared.safeToSeq;
    this.#from = from;
  }

  get generation(): number {
    return this.#generation;
  }

  get places(): Places {
    return this.#places;
  }

  get safeToSeq(): number {
    return this.#safeToSeq;
  }

  /** From now on reads go by `places` (the old ones when changed in place). Resolves when older reads have ended. */
  async switchTo({ places, safeToSeq }: Prepared): Promise<void> {
    this.#places = places;
    this.#safeToSeq = safeToSeq;
    this.#generation += 1;
    const before = this.#readers;
    this.#readers = { count: 0, ended: null };
    if (before.count > 0) {
      await new Promise<void>((resolve) => {
        before.ended = resolve;
      });
    }
  }

  tryRead(start: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#pacer.tryNow(() => {
      try {
        const took = this.#readNow(start, length, target, targetOffset);
        return took === 'journal' || (took === 'mim' && this.#from.watch.holdsTo(this.#safeToSeq));
      } catch (error) {
        // `read` finds out whether it is damaged or has gone.
        if (error instanceof MidmirrorError && error.code === 'corrupt') return false;
        throw error;
      }
    });
  }

  read(start: number, length: number, target: Uint8Array, targetOffset: number): Promise<void> {
    return this.#under(start, length, (parts) => this.#readParts(parts, start, target, targetOffset));
  }

  async #readParts(
    parts: readonly Part[],
    start: number,
    target: Uint8Array,
    targetOffset: number,
  ): Promise<void> {
    const { mim, pieces } = this.#from;
    for (const part of parts) {
      const to = targetOffset + part.start - start;
      if (part.extent === null) await mim.read(part.start, part.length, target, to);
      else if (part.extent.flags & ExtentFlag.zero) target.fill(0, to, to + part.length);
      else await pieces.read(part.extent, part.skip, part.length, target, to);
    }
  }

  /**
   * What `act` makes of the places of a range, while nobody changes what they name; again by newer places, when a sync
   * that this mirror has not heard of may have written to the MIM by then, or what they name has gone.
   */
  async #under<T>(
    start: number,
    length: number,
    act: (parts: readonly Part[]) => Promise<T> | T,
  ): Promise<T> {
    const { watch, pieces, renew } = this.#from;
    let reopened = '';
    for (let tries = 1; ; tries += 1) {
      const readers = this.#readers;
      const [generation, safeToSeq] = [this.#generation, this.#safeToSeq];
      let failure: MidmirrorError | null = null;
      readers.count += 1;
      try {
        const found = this.#places.tryFind(start, length) ?? (await this.#places.find(start, length));
        const parts = partsOf(found, start, length);
        const made = await act(parts);
        if (parts.every(({ extent }) => extent !== null) || watch.holdsTo(safeToSeq)) return made;
      } catch (error) {
        if (!(error instanceof RunGoneError || error instanceof LostPieceError)) throw error;
        failure = error;
      } finally {
        readers.count -= 1;
        if (readers.count === 0) readers.ended?.();
      }
      if (tries === limits.readTriesMax) throw failure ?? this.#overtaken();
      const lost = failure instanceof LostPieceError ? failure : null;
      if (lost !== null) await pieces.forget(lost.backward, lost.source);
      if (await renew(generation, lost)) continue;
      // Opened before another file took its name, at best.
      const piece = `${lost?.backward}/${lost?.source}`;
      if (piece === reopened) throw failure;
      reopened = piece;
    }
  }

  #overtaken(): MidmirrorError {
    return new MidmirrorError(
      'unavailable',
      `syncs overtook a read of write ${this.seq} ${limits.readTriesMax} times`,
      { hint: 'try again' },
    );
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
      const span = Math.min(end - at, limits.allocationStepBytes);
      const spans = await this.#under(at, span, (parts) => this.#spans(parts));
      for (const { lengthBytes, hole } of spans) {
        const last = extents.at(-1);
        if (last?.hole === hole) last.lengthBytes += lengthBytes;
        else if (extents.length === extentsMax) return extents;
        else extents.push({ lengthBytes, hole });
      }
      at += span;
    }
    return extents;
  }

  /** Length, at most `length`, from `start` on, that is of one kind. */
  span(start: number, length: number): Promise<AllocationExtent> {
    const asked = Math.min(length, limits.allocationStepBytes);
    return this.#under(start, asked, (parts) => this.#spans(parts)[0]!);
  }

  /** What the MIM has never held is a place of its own kind: zeroes, as those that were written. */
  placesIn(start: number, length: number): Promise<Place[]> {
    return this.#under(start, length, (parts) => {
      const places: Place[] = [];
      for (const part of parts) {
        if (part.extent !== null) places.push({ lengthBytes: part.length, name: nameOf(part) });
        else
          for (const { lengthBytes, hole } of this.#mimSpans(part.start, part.length))
            places.push({ lengthBytes, name: hole ? 'zero' : 'mim' });
      }
      return places;
    });
  }

  #spans(parts: readonly Part[]): AllocationExtent[] {
    const spans: AllocationExtent[] = [];
    for (const part of parts) {
      if (part.extent === null) spans.push(...this.#mimSpans(part.start, part.length));
      else spans.push({ lengthBytes: part.length, hole: (part.extent.flags & ExtentFlag.zero) !== 0 });
    }
    return spans;
  }

  *#mimSpans(start: number, length: number): Generator<AllocationExtent> {
    for (let done = 0; done < length; ) {
      const span = this.#from.mim.span(start + done, length - done);
      yield span;
      done += span.lengthBytes;
    }
  }

  /** `later`: not without waiting. Else where it was taken from. */
  #readNow(
    start: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): 'later' | 'journal' | 'mim' {
    const { mim, pieces } = this.#from;
    const end = start + length;
    const c = this.#places.tryFind(start, length);
    if (c === null) return 'later';
    let took: 'journal' | 'mim' = 'journal';
    for (let at = start; at < end; ) {
      const to = targetOffset + at - start;
      if (!c.valid || c.start > at) {
        const until = c.valid ? Math.min(c.start, end) : end;
        if (!mim.tryRead(at, until - at, target, to)) return 'later';
        took = 'mim';
        at = until;
        continue;
      }
      const until = Math.min(c.end, end);
      if (c.flags & ExtentFlag.zero) target.fill(0, to, to + until - at);
      else if (at === c.start && until === c.end) {
        if (!pieces.tryRead(c.flags, c.source, c.offset, c.length, c.crc, target, to)) return 'later';
      } else {
        if (!pieces.tryRead(c.flags, c.source, c.offset, c.length, c.crc, SCRATCH, 0)) return 'later';
        target.set(SCRATCH.subarray(at - c.start, until - c.start), to);
      }
      at = until;
      c.next();
    }
    return took;
  }
}

function partsOf(c: PlaceCursor, start: number, length: number): Part[] {
  const parts: Part[] = [];
  const end = start + length;
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

function nameOf({ start, extent, skip }: Part): string {
  if (extent === null) return 'mim';
  if (extent.flags & ExtentFlag.zero) return 'zero';
  // How far its place is from its address is the same all along, wherever the part begins.
  return `${extent.flags & ExtentFlag.backward}/${extent.source}/${extent.offset + skip - start}`;
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
