// Guesses whether the next operation will be quick. Done at once it saves a hop to the thread pool (tens of
// microseconds, a factor of two on cached reads); but a slow one stops the loop, so after one of those the next
// take the hop.

export class Pacer {
  readonly #quickMsMax: number;
  readonly #hopsAfterSlow: number;
  #hops = 0;

  constructor(quickMsMax: number, hopsAfterSlow: number) {
    this.#quickMsMax = quickMsMax;
    this.#hopsAfterSlow = hopsAfterSlow;
  }

  /** Runs `act` unless the last ones were slow; false: nothing was done, or `act` could not. */
  tryNow(act: () => boolean): boolean {
    if (this.#hops > 0) {
      this.#hops -= 1;
      return false;
    }
    const began = performance.now();
    const done = act();
    if (performance.now() - began > this.#quickMsMax) this.#hops = this.#hopsAfterSlow;
    return done;
  }
}

/** For reads: cached ones take microseconds. */
export function readPacer(): Pacer {
  return new Pacer(0.5, 32);
}
