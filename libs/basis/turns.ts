// One thing at a time: acts run in the order of the calls.

export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  take<T>(act: () => Promise<T>): Promise<T> {
    const done = this.#last.then(act);
    this.#last = done.catch(() => {});
    return done;
  }

  /** Resolves when every act of before this call has ended, well or not. */
  async ended(): Promise<void> {
    await this.#last;
  }
}
