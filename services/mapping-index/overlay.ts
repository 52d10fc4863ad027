// The overlay of several runs into one, page by page: pure. Where runs overlap, one of them wins: the newest of the
// forward side, the oldest of the backward side. What it takes of memory is a page of each run.
import { ExtentFlag } from '@midmirror/extent-map';
import { endOfExtent, PAGE_WORDS, type PelPage } from '@midmirror/catalog';

const FLAGS = 511;

/** What takes the extents of the overlay, in ascending order. */
export interface ExtentSink {
  add(start: number, length: number, flags: number, source: number, offset: number, crc: number): void;
}

export class Overlay {
  /** By rank: the first wins over all others. */
  readonly #inputs: Input[];
  readonly #sink: ExtentSink;
  #at = 0;

  constructor(runs: number, sink: ExtentSink) {
    this.#inputs = Array.from({ length: runs }, () => new Input());
    this.#sink = sink;
  }

  /** Ranks of the runs that need their next page before it can go on; empty when all have ended. */
  get hungry(): number[] {
    return this.#inputs.flatMap((input, rank) => (input.hungry ? [rank] : []));
  }

  /** The next page of a run; null: there is none. */
  feed(rank: number, page: PelPage | null): void {
    this.#inputs[rank]!.feed(page);
  }

  /** Goes on until a run needs a page, all have ended, or about so many extents were looked at. True: all ended. */
  run(extentsMax: number): boolean {
    for (let looked = 0; looked < extentsMax; looked += 1) {
      let winner: Input | null = null;
      let until = Number.POSITIVE_INFINITY;
      for (const input of this.#inputs) {
        if (!input.skipTo(this.#at)) {
          if (input.hungry) return false;
          continue;
        }
        if (input.start > this.#at) until = Math.min(until, input.start);
        else if (winner === null) {
          winner = input;
          until = Math.min(until, input.end);
          break; // what ranks below it does not show here
        }
      }
      if (winner === null) {
        if (until === Number.POSITIVE_INFINITY) return true;
        this.#at = until;
        continue;
      }
      winner.give(this.#at, until, this.#sink);
      this.#at = until;
    }
    return false;
  }
}

class Input {
  #page: PelPage | null = null;
  #index = 0;
  #ended = false;
  start = 0;
  end = 0;

  get hungry(): boolean {
    return !this.#ended && (this.#page === null || this.#index >= this.#page.count);
  }

  feed(page: PelPage | null): void {
    this.#page = page;
    this.#index = 0;
    this.#ended = page === null;
  }

  /** On the first extent that ends after an address; false: there is none, or a page is lacking. */
  skipTo(address: number): boolean {
    const page = this.#page;
    if (page === null) return false;
    for (; this.#index < page.count; this.#index += 1) {
      this.start = page.starts[this.#index]!;
      this.end = endOfExtent(page, this.#index);
      if (this.end > address) return true;
    }
    return false;
  }

  /** Hands on what of the extent lies in `[from, until)`. */
  give(from: number, until: number, sink: ExtentSink): void {
    const base = this.#index * PAGE_WORDS;
    const { words } = this.#page!;
    const flags = words[base]! & FLAGS;
    const zero = (flags & ExtentFlag.zero) !== 0;
    const whole = from === this.start && until === this.end;
    sink.add(
      from,
      until - from,
      whole ? flags : flags & ~ExtentFlag.whole,
      words[base + 1]!,
      zero ? 0 : words[base + 2]! + (from - this.start),
      whole ? words[base + 3]! : 0,
    );
  }
}
