// Those who wait until a consumer has come to a position.

export class PositionWaiters {
  readonly #waiting: { position: number; resolve(): void; reject(error: Error): void }[] = [];

  get size(): number {
    return this.#waiting.length;
  }

  /** Resolves when `tell` comes to the position, rejects with what `refuseAll` says. */
  reached(position: number): Promise<void> {
    return new Promise<void>((resolve, reject) => this.#waiting.push({ position, resolve, reject }));
  }

  tell(position: number): void {
    for (let i = this.#waiting.length - 1; i >= 0; i -= 1) {
      if (this.#waiting[i]!.position <= position) this.#waiting.splice(i, 1)[0]!.resolve();
    }
  }

  refuseAll(error: Error): void {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
  }
}
