// The collapse set C of [0079]: the ranges that one move joins into a single node of a VBMJ. They make one block of
// addresses, so their number and the ends of the block are all that is kept of them.

export class CollapseSet {
  #size = 0;
  #start = 0;
  #end = 0;

  /** Ranges in the set. */
  get size(): number {
    return this.#size;
  }

  /** R(C), half-open, in bytes: from the lowest start to the greatest end (the text's "starting" is a misprint). */
  get start(): number {
    return this.#start;
  }
  get end(): number {
    return this.#end;
  }

  clear(): void {
    this.#size = 0;
  }

  add(start: number, end: number): void {
    this.#start = this.#size === 0 ? start : Math.min(this.#start, start);
    this.#end = this.#size === 0 ? end : Math.max(this.#end, end);
    this.#size += 1;
  }
}
