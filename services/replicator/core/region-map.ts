// What is known of each region of the volume: whether the appliance may lack something of it (behind), whether that
// would be known after a crash (intent, durable), and the place in the queue of the last write to it. Bounded: at most
// 2^18 regions, ten bytes each.
import { assert } from '@midmirror/basis';
import { type Limits, limits } from '../limits.ts';
import { PAGE_REGIONS, pagesOf } from './intent-format.ts';

const BEHIND = 1;
/** Its bit is set in the map as it will be stored. */
const INTENT = 2;
/** Its bit is set in the map on stable storage, and will be until `clear`. */
const DURABLE = 4;

/** A power of two. */
export function regionBytesOf(volumeBytes: number): number {
  let regionBytes: number = limits.regionBytesMin;
  while (volumeBytes / regionBytes > limits.regionsMax) regionBytes *= 2;
  return regionBytes;
}

export class RegionMap {
  readonly volumeBytes: number;
  readonly regionBytes: number;
  readonly count: number;
  /** One bit a region: the map as it will be stored. */
  readonly bits: Uint8Array;
  readonly #flags: Uint8Array;
  readonly #lastPos: Float64Array;
  readonly #groupRegions: number;
  #behindCount = 0;
  #behindBytes = 0;
  /** Regions whose intent is not durable yet: wanted since the last store began, and in the store under way. */
  #wanted: number[] = [];
  #storing: number[] = [];
  #dirty = new Set<number>();

  /** `bits`: what a stored map holds; its regions are behind. Null: all are. */
  constructor(
    volumeBytes: number,
    regionBytes: number,
    bits: Uint8Array | null,
    { intentGroupBytes }: Pick<Limits, 'intentGroupBytes'> = limits,
  ) {
    this.volumeBytes = volumeBytes;
    this.regionBytes = regionBytes;
    this.count = Math.ceil(volumeBytes / regionBytes);
    this.bits = new Uint8Array((pagesOf(this.count) * PAGE_REGIONS) / 8);
    this.#flags = new Uint8Array(this.count);
    this.#lastPos = new Float64Array(this.count);
    this.#groupRegions = Math.max(1, intentGroupBytes / regionBytes);
    for (let region = 0; region < this.count; region += 1) {
      if (bits !== null && (bits[region >> 3]! & (1 << (region & 7))) === 0) continue;
      this.#flags[region] = INTENT | DURABLE;
      this.bits[region >> 3]! |= 1 << (region & 7);
      this.markBehind(region);
    }
  }

  get behindCount(): number {
    return this.#behindCount;
  }

  get behindBytes(): number {
    return this.#behindBytes;
  }

  /** Regions whose bits a crash would leave set. */
  get intentCount(): number {
    let count = 0;
    for (const flags of this.#flags) if ((flags & INTENT) !== 0) count += 1;
    return count;
  }

  regionOf(at: number): number {
    return Math.floor(at / this.regionBytes);
  }

  lastRegionOf(start: number, length: number): number {
    return Math.floor((start + length - 1) / this.regionBytes);
  }

  startOf(region: number): number {
    return region * this.regionBytes;
  }

  endOf(region: number): number {
    return Math.min((region + 1) * this.regionBytes, this.volumeBytes);
  }

  // ── behind ─────────────────────────────────────────────────────────────────────────────────────────────

  isBehind(region: number): boolean {
    return (this.#flags[region]! & BEHIND) !== 0;
  }

  markBehind(region: number): void {
    const flags = this.#flags[region]!;
    if ((flags & BEHIND) !== 0) return;
    assert((flags & DURABLE) !== 0, `region ${region} is not behind before a crash would leave it so`);
    this.#flags[region] = flags | BEHIND;
    this.#behindCount += 1;
    this.#behindBytes += this.endOf(region) - this.startOf(region);
  }

  markClean(region: number): void {
    if (!this.isBehind(region)) return;
    this.#flags[region]! &= ~BEHIND;
    this.#behindCount -= 1;
    this.#behindBytes -= this.endOf(region) - this.startOf(region);
  }

  /** The first region behind from `from` on; -1: there is none. */
  nextBehind(from: number): number {
    if (this.#behindCount === 0) return -1;
    for (let region = from; region < this.count; region += 1) if (this.isBehind(region)) return region;
    return -1;
  }

  /** Everything that was sent after `pos` is behind. False: nothing was. */
  markBehindAfter(pos: number): boolean {
    let any = false;
    for (let region = 0; region < this.count; region += 1) {
      if (this.#lastPos[region]! <= pos) continue;
      this.markBehind(region);
      any = true;
    }
    return any;
  }

  // ── what has been sent ─────────────────────────────────────────────────────────────────────────────────

  lastPos(region: number): number {
    return this.#lastPos[region]!;
  }

  sent(region: number, pos: number): void {
    this.#lastPos[region] = pos;
  }

  // ── intent ─────────────────────────────────────────────────────────────────────────────────────────────

  isDurable(first: number, last: number): boolean {
    for (let region = first; region <= last; region += 1)
      if ((this.#flags[region]! & DURABLE) === 0) return false;
    return true;
  }

  /** Sets the bits of the regions, and of their neighbours in a group; durable after the next store. */
  want(first: number, last: number): void {
    for (let region = first; region <= last; region += 1) {
      if ((this.#flags[region]! & INTENT) !== 0) continue;
      const from = region - (region % this.#groupRegions);
      const to = Math.min(from + this.#groupRegions, this.count);
      for (let each = from; each < to; each += 1) {
        if ((this.#flags[each]! & INTENT) !== 0) continue;
        this.#flags[each]! |= INTENT;
        this.bits[each >> 3]! |= 1 << (each & 7);
        this.#dirty.add(Math.floor(each / PAGE_REGIONS));
        this.#wanted.push(each);
      }
    }
  }

  /** There are bits to store: somebody waits for them, or they are taken back. */
  get unstored(): boolean {
    return this.#dirty.size > 0;
  }

  /** A store begins: the pages that it has to write, as they are now. */
  beginStore(): number[] {
    const pages = [...this.#dirty];
    this.#dirty.clear();
    this.#storing = this.#wanted;
    this.#wanted = [];
    return pages;
  }

  endStore(pages: readonly number[], stored: boolean): void {
    const regions = this.#storing;
    this.#storing = [];
    if (stored) for (const region of regions) this.#flags[region]! |= DURABLE;
    else {
      this.#wanted = regions.concat(this.#wanted);
      for (const page of pages) this.#dirty.add(page);
    }
  }

  /**
   * Takes intent back, of whole groups: nothing in them is behind, has been sent after `pos`, or is in use. Stored
   * whenever it suits.
   */
  clear(pos: number, inUse: (start: number, length: number) => boolean): void {
    for (let from = 0; from < this.count; from += this.#groupRegions) {
      const to = Math.min(from + this.#groupRegions, this.count);
      let needless = true;
      let any = false;
      for (let each = from; each < to && needless; each += 1) {
        const flags = this.#flags[each]!;
        any ||= (flags & INTENT) !== 0;
        const storing = (flags & INTENT) !== 0 && (flags & DURABLE) === 0;
        needless = (flags & BEHIND) === 0 && !storing && this.#lastPos[each]! <= pos;
      }
      if (!any || !needless || inUse(this.startOf(from), this.endOf(to - 1) - this.startOf(from))) continue;
      for (let each = from; each < to; each += 1) {
        this.#flags[each]! &= ~(INTENT | DURABLE);
        this.bits[each >> 3]! &= ~(1 << (each & 7));
        this.#dirty.add(Math.floor(each / PAGE_REGIONS));
      }
    }
  }
}
