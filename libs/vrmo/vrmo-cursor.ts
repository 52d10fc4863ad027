// The cursor over the extents of a VRMO, whichever kind it is at the moment. Reuse one on a hot path: `seek` makes no
// garbage.
import type { RangeIndex } from './range-index.ts';
import type { PlaceCursor } from './vrmo.ts';

export class VrmoCursor implements PlaceCursor {
  readonly #owner: { readonly index: RangeIndex };
  #index: RangeIndex;
  #slot: number;

  /** On the first extent that ends after `start`. Invalid after the next change; `seek` makes it valid again. */
  constructor(owner: { readonly index: RangeIndex }, start: number) {
    this.#owner = owner;
    this.#index = owner.index;
    this.#slot = this.#index.seek(start);
  }

  seek(start: number): this {
    this.#index = this.#owner.index;
    this.#slot = this.#index.seek(start);
    return this;
  }

  next(): void {
    this.#slot = this.#index.next(this.#slot);
  }

  get valid(): boolean {
    return this.#slot >= 0;
  }
  get start(): number {
    return this.#index.tree.startOf(this.#slot);
  }
  get end(): number {
    return this.#index.endOf(this.#slot);
  }
  get length(): number {
    return this.end - this.start;
  }
  get flags(): number {
    return this.#index.tree.flagsOf(this.#slot);
  }
  get source(): number {
    return this.#index.tree.sourceOf(this.#slot);
  }
  get offset(): number {
    return this.#index.tree.offsetOf(this.#slot);
  }
  get crc(): number {
    return this.#index.tree.crcOf(this.#slot);
  }
}
