// A point that lies within a sealed segment. That segment's run tells what its writes left at its end; where nothing of
// a range was written after the point, it tells the same of the point, and opening need not read all descriptors. They
// are read once a range asks for more.
import type { StoredRun } from '@midmirror/catalog';
import { ExtentFlag } from '@midmirror/extent-map';
import type { PlaceCursor } from '@midmirror/vrmo';
import type { Places } from './places.ts';
import type { RunLayers } from '@midmirror/runs';

export class DividedLayers implements Places {
  /** With the run of the divided segment on top. */
  readonly #whole: RunLayers;
  readonly #segment: number;
  /** Where the data of later writes begins. */
  readonly #dataAfter: number;
  readonly #load: () => Promise<RunLayers>;
  #loading: Promise<RunLayers> | null = null;
  #exact: RunLayers | null = null;

  /** `load`: the layers with the segment's writes up to the point instead of its run. */
  constructor(whole: RunLayers, segment: number, dataAfter: number, load: () => Promise<RunLayers>) {
    this.#whole = whole;
    this.#segment = segment;
    this.#dataAfter = dataAfter;
    this.#load = load;
  }

  /** Without that of the divided segment; the first wins. */
  get runs(): readonly StoredRun[] {
    return this.#whole.runs.slice(1);
  }

  get extentCount(): number {
    return (this.#exact ?? this.#whole).extentCount;
  }

  get memoryBytes(): number {
    return (this.#exact ?? this.#whole).memoryBytes;
  }

  tryFind(start: number, length: number): PlaceCursor | null {
    if (this.#exact !== null) return this.#exact.tryFind(start, length);
    const found = this.#whole.tryFind(start, length);
    return found === null || this.#hasLater(found, start + length) ? null : found.seek(start);
  }

  async find(start: number, length: number): Promise<PlaceCursor> {
    if (this.#exact === null) {
      const found = await this.#whole.find(start, length);
      if (!this.#hasLater(found, start + length)) return found.seek(start);
    }
    return await (await this.exact()).find(start, length);
  }

  async exact(): Promise<RunLayers> {
    this.#loading ??= this.#load();
    try {
      this.#exact = await this.#loading;
      return this.#exact;
    } catch (error) {
      this.#loading = null;
      throw error;
    }
  }

  /** Whether something that the segment has here may have been written after the point: zeroes have no data to tell. */
  #hasLater(c: PlaceCursor, end: number): boolean {
    for (; c.valid && c.start < end; c.next()) {
      if (c.source !== this.#segment || c.flags & ExtentFlag.backward) continue;
      if (c.flags & ExtentFlag.zero || c.offset + c.length > this.#dataAfter) return true;
    }
    return false;
  }
}
