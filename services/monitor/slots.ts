// So many at one time; the others wait in the order they came.

export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Rejects with the signal's reason while it waits. */
  async take<T>(signal: AbortSignal, act: () => Promise<T>): Promise<T> {
    await this.#enter(signal);
    try {
      return await act();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }

  async #enter(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const mine = Promise.withResolvers<void>();
    this.#waiting.push(mine.resolve);
    const abort = (): void => {
      const at = this.#waiting.indexOf(mine.resolve);
      if (at === -1) return; // its turn has come
      this.#waiting.splice(at, 1);
      mine.reject(signal.reason);
    };
    signal.addEventListener('abort', abort);
    try {
      await mine.promise;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }
}
