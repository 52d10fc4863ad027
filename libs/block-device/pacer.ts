// Guesses whether the next operation will be quick. Done at once it saves a hop to the thread pool (tens of
// microseconds, a factor of two on cached reads); but a slow one stops the loop, so after one of those the next
// take the hop.

const QUICK_MS_MAX = 0.5;
const HOPS_AFTER_SLOW = 32;

export class Pacer {
  #hops = 0;

  /** Runs `act` unless the last ones were slow; false: nothing was done, or `act` could not. */
  tryNow(act: () => boolean): boolean {
    if (this.#hops > 0) {
      this.#hops -= 1;
      return false;
    }
    const began = performance.now();
    const done = act();
    if (performance.now() - began > QUICK_MS_MAX) this.#hops = HOPS_AFTER_SLOW;
    return done;
  }
}
