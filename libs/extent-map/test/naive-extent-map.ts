// The naive twin: one slot per 512-byte block. Slow and plainly right.

export interface NaiveBlock {
  zero: boolean;
  backward: boolean;
  source: number;
  /** Where this block's bytes lie; -1 for zeroes. */
  offset: number;
}

export class NaiveExtentMap {
  readonly blocks = new Map<number, NaiveBlock>();

  put(start: number, length: number, block: NaiveBlock, under: boolean): void {
    for (let at = 0; at < length; at += 512) {
      const address = start + at;
      if (under && this.blocks.has(address)) continue;
      this.blocks.set(address, { ...block, offset: block.zero ? -1 : block.offset + at });
    }
  }

  erase(start: number, length: number): void {
    for (let at = start; at < start + length; at += 512) this.blocks.delete(at);
  }
}
