// Guesses whether data is in memory. A read at once saves a hop to the thread pool (a factor of two on cached
// data) but stops the loop when the disk must be asked; after one slow read the next ones take the hop.

const CACHED_READ_MS_MAX = 0.5;
const ASYNCHRONOUS_AFTER_SLOW = 32;

export class ReadPacer {
  #credit = 0;

  /** Runs `read` unless the disk seems slow now; false: nothing was done, or `read` could not. */
  tryNow(read: () => boolean): boolean {
    if (this.#credit > 0) {
      this.#credit -= 1;
      return false;
    }
    const began = performance.now();
    const done = read();
    if (performance.now() - began > CACHED_READ_MS_MAX) this.#credit = ASYNCHRONOUS_AFTER_SLOW;
    return done;
  }
}
