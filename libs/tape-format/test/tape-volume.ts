// A volume of the tests: bytes, written at random, archived as an image or as a difference to an earlier archive.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { SeededRandom } from '@midmirror/basis';
import {
  type ArchiveRequest,
  type ArchiveSummary,
  ArchiveWriting,
  type LayerOptions,
  type Manifest,
  openArchive,
  planArchive,
  type ReadOptions,
  type TapeExtent,
} from '../index.ts';
import { chunked, collect } from './volume-bytes.ts';

const SECTOR = 512;

export interface Archived {
  bytes: Buffer;
  manifest: Manifest;
  summary: ArchiveSummary;
  /** The volume as it was. */
  disk: Buffer;
}

export class TapeVolume {
  readonly disk: Buffer;
  readonly #random: SeededRandom;
  readonly #name: string;
  /** Since the last archive, a byte for each sector. */
  #changed: Uint8Array;
  #seq = 0;

  constructor(sizeBytes: number, seed: number, name = 'db') {
    this.disk = Buffer.alloc(sizeBytes);
    this.#changed = new Uint8Array(sizeBytes / SECTOR);
    this.#random = new SeededRandom(seed);
    this.#name = name;
  }

  /** Some writes: data, and zeroes over what there was. */
  write(count: number): void {
    for (let i = 0; i < count; i += 1) {
      const sectors = 1 + this.#random.below(300);
      const first = this.#random.below(this.#changed.length - Math.min(sectors, this.#changed.length) + 1);
      const end = Math.min(first + sectors, this.#changed.length);
      this.#seq += 1;
      if (this.#random.below(3) === 0) this.disk.fill(0, first * SECTOR, end * SECTOR);
      else
        for (let at = first * SECTOR; at < end * SECTOR; at += 4)
          this.disk.writeInt32BE(this.#random.below(2 ** 30), at);
      this.#changed.fill(1, first, end);
    }
  }

  async archive(parent: Archived | null, layers: LayerOptions = {}): Promise<Archived> {
    const extents =
      parent === null ? this.#extents(() => true) : this.#extents((sector) => this.#changed[sector] === 1);
    const plan = planArchive(this.request(parent?.manifest ?? null, layers, extents));
    const writing = new ArchiveWriting(plan, {
      read: async (start, length, target) => target.set(this.disk.subarray(start, start + length)),
    });
    const bytes = await collect(writing.chunks());
    this.#changed = new Uint8Array(this.#changed.length);
    const summary = { ...writing.summary, sha256: createHash('sha256').update(bytes).digest('hex') };
    return { bytes, manifest: plan.manifest, summary, disk: Buffer.from(this.disk) };
  }

  request(parent: Manifest | null, layers: LayerOptions, extents: TapeExtent[]): ArchiveRequest {
    return {
      archive: `a${(parent?.chain.length ?? -1) + 1}-${this.#seq}`,
      volume: { id: 'volume-1', name: this.#name, sizeBytes: this.disk.length },
      point: { seq: this.#seq, time: `2026-11-27T10:00:${String(this.#seq % 60).padStart(2, '0')}.25Z` },
      parent,
      created: '2026-11-27T11:00:00Z',
      layers,
      extents,
    };
  }

  #extents(belongs: (sector: number) => boolean): TapeExtent[] {
    const extents: TapeExtent[] = [];
    for (let sector = 0; sector < this.#changed.length; sector += 1) {
      if (!belongs(sector)) continue;
      const startBytes = sector * SECTOR;
      const isZero = this.disk.subarray(startBytes, startBytes + SECTOR).every((byte) => byte === 0);
      const kind = isZero ? 'zero' : 'data';
      const last = extents.at(-1);
      if (last?.kind === kind && last.startBytes + last.lengthBytes === startBytes)
        last.lengthBytes += SECTOR;
      else extents.push({ startBytes, lengthBytes: SECTOR, kind });
    }
    return extents;
  }
}

/** Reads all of it and keeps nothing. */
export async function readWhole(
  source: AsyncIterable<Uint8Array>,
  options: ReadOptions = {},
): Promise<Manifest> {
  const reading = await openArchive(source, options);
  for await (const _ of reading.ranges()) void _;
  assert.ok(reading.summary.bytes > 0);
  return reading.manifest;
}

/** Puts an archive onto `disk`, as a restore does. */
export async function restoreOnto(
  disk: Buffer,
  bytes: Buffer,
  options: ReadOptions = {},
): Promise<ArchiveSummary> {
  const reading = await openArchive(chunked(bytes), options);
  for await (const range of reading.ranges()) {
    if (range.kind === 'zero') disk.fill(0, range.startBytes, range.startBytes + range.lengthBytes);
    else range.bytes.copy(disk, range.startBytes);
  }
  return reading.summary;
}
