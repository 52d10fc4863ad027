// How many extents the trees of all open mirrors may hold together: what is over it stays on the runs, which need
// no memory of their own.

export class TreeBudget {
  readonly #extentsMax: number;
  #taken = 0;

  constructor(extentsMax: number) {
    this.#extentsMax = extentsMax;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Gives back what it took, once; null: there is not so much left. */
  take(extents: number): (() => void) | null {
    if (this.#taken + extents > this.#extentsMax) return null;
    this.#taken += extents;
    let left = extents;
    return () => {
      this.#taken -= left;
      left = 0;
    };
  }
}
