// The VRMO of an open mirror: a VBMM or a VBMJ, whichever is smaller, re-indexed as the other when that has become
// smaller [0077] or when it outgrows a size in memory (claim 18 of 2003/0135703).
import { ExtentFlag, type ExtentMap } from '@midmirror/extent-map';
import { TREE_SHAPE, type TreeShape } from './multiway-tree.ts';
import type { RangeIndex, VrmoKind } from './range-index.ts';
import { sortAndJoin } from './sort-and-join.ts';
import { Vbmj } from './vbmj.ts';
import { Vbmm } from './vbmm.ts';
import { VrmoCursor } from './vrmo-cursor.ts';
import type { PlaceCursor, Vrmo } from './vrmo.ts';

/** Addresses of a volume whose size nobody gave. */
const SIZE_BYTES_MAX = 2 ** 52;
const MEMORY_BYTES_MAX = 32 << 20;
/** The other kind must be smaller by a part of this one, and by a leaf, or it isn't worth the walk and would flap. */
const GAIN_PART = 1 / 16;
/** Once re-indexed for its size, how much it grows before that is tried again. */
const OUTGROWN_AGAIN = 1.25;

export interface TreeVrmoOptions {
  /** Bytes of the volume. */
  readonly sizeBytes?: number;
  /** Above this it is re-indexed even for a small gain. */
  readonly memoryBytesMax?: number;
  readonly shape?: TreeShape;
}

/** Ranges on the MIM, and extents in journals. */
interface Counts {
  ranges: number;
  extents: number;
}

/** Whether an extent stays in its journal. */
type Keeps = (flags: number, source: number) => boolean;

export class TreeVrmo implements Vrmo {
  readonly #sizeBytes: number;
  readonly #shape: TreeShape;
  #index: RangeIndex;
  #outgrownBytes: number;
  #conversions = 0;

  /** Of what lies in journals at first. The map is left alone. Linear in it. */
  constructor(map: ExtentMap, options: TreeVrmoOptions = {}) {
    this.#sizeBytes = options.sizeBytes ?? SIZE_BYTES_MAX;
    this.#shape = options.shape ?? TREE_SHAPE;
    this.#outgrownBytes = options.memoryBytesMax ?? MEMORY_BYTES_MAX;
    const counts = countsOf(map.cursor(), this.#sizeBytes);
    this.#index = this.#indexed(smaller('VBMM', counts, this.#leafBytes), map.cursor());
  }

  /** What it is keyed by at the moment. */
  get kind(): VrmoKind {
    return this.#index.kind;
  }

  /** Ranges on the MIM of a VBMM, ranges in journals of a VBMJ. */
  get nodes(): number {
    return this.#index.nodes;
  }

  /** Nodes of the multi-way tree from its root to an extent. */
  get depth(): number {
    return this.#index.tree.depth;
  }

  /** How often it has been re-indexed. */
  get conversions(): number {
    return this.#conversions;
  }

  get extentCount(): number {
    return this.#index.extentCount;
  }

  get memoryBytes(): number {
    return this.#index.tree.memoryBytes;
  }

  /** For VrmoCursor and tests. */
  get index(): RangeIndex {
    return this.#index;
  }

  cursor(startBytes: number): VrmoCursor {
    return new VrmoCursor(this, startBytes);
  }

  backwardMovelist(moves: ExtentMap): number[] {
    const emitted: number[] = [];
    for (const c = moves.cursor(); c.valid; c.next()) this.#index.emit(c.start, c.length, emitted);
    return sortAndJoin(emitted);
  }

  moveOffMim(saved: ExtentMap): void {
    const index = this.#index;
    for (const c = saved.cursor(); c.valid; c.next()) index.move(c);
    this.#reindex(this.#counts());
  }

  moveOntoMim(lastSegment: number): void {
    const keeps = (flags: number, source: number): boolean =>
      (flags & ExtentFlag.backward) !== 0 || source > lastSegment;
    const counts = countsOf(this.cursor(0), this.#sizeBytes, keeps);
    if (counts.extents < this.extentCount) this.#reindex(counts, keeps);
  }

  /** Walks it into a new index, if what it keeps asks for that. */
  #reindex(counts: Counts, keeps?: Keeps): void {
    const outgrown = this.memoryBytes > this.#outgrownBytes;
    const kind = smaller(this.kind, counts, outgrown ? 0 : this.#leafBytes, outgrown ? 0 : GAIN_PART);
    if (kind === this.kind && keeps === undefined) return;
    if (kind !== this.kind) this.#conversions += 1;
    this.#index = this.#indexed(kind, this.cursor(0), keeps);
    if (outgrown) this.#outgrownBytes = Math.max(this.#outgrownBytes, this.memoryBytes * OUTGROWN_AGAIN);
  }

  get #leafBytes(): number {
    return Vbmj.recordBytes(1 << this.#shape.leafShift);
  }

  #indexed(kind: VrmoKind, extents: PlaceCursor, keeps?: Keeps): RangeIndex {
    return (kind === 'VBMM' ? Vbmm : Vbmj).of(this.#sizeBytes, extents, this.#shape, keeps);
  }

  /** Between n ranges in journals lie n - 1 on the MIM, and mostly one at each end. */
  #counts(): Counts {
    const { kind, nodes, extentCount } = this.#index;
    return { ranges: kind === 'VBMM' ? nodes : nodes + 1, extents: extentCount };
  }
}

/** The other kind, if by that so many bytes, and such a part of what then is taken, are gained; else the present. */
function smaller(present: VrmoKind, { ranges, extents }: Counts, bytesMin: number, partMin = 0): VrmoKind {
  const vbmm = Vbmm.recordBytes(ranges, extents);
  const vbmj = Vbmj.recordBytes(extents);
  const gained = present === 'VBMM' ? vbmm - vbmj : vbmj - vbmm;
  if (gained <= bytesMin + partMin * Math.min(vbmm, vbmj)) return present;
  return present === 'VBMM' ? 'VBMJ' : 'VBMM';
}

function countsOf(c: PlaceCursor, sizeBytes: number, keeps: Keeps = () => true): Counts {
  const counts = { ranges: 0, extents: 0 };
  let at = 0;
  for (; c.valid; c.next()) {
    if (!keeps(c.flags, c.source)) continue;
    if (c.start > at) counts.ranges += 1;
    counts.extents += 1;
    at = c.end;
  }
  if (at < sizeBytes) counts.ranges += 1;
  return counts;
}
