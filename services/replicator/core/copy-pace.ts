// How fast is copied: at most so many bytes a second, and what it comes to over the last seconds.
import { limits } from '../limits.ts';

export class CopyPace {
  /** Null: as fast as it goes. */
  readonly bytesPerSecond: number | null;
  #allowance = 0;
  #sinceMs = 0;
  readonly #samples: { atMs: number; bytes: number }[] = [];
  #copied = 0;

  constructor(bytesPerSecond: number | null) {
    this.bytesPerSecond = bytesPerSecond;
  }

  /** False: it is not time for more yet. A piece may take more than there is: the next waits for it. */
  mayCopy(nowMs: number): boolean {
    if (this.bytesPerSecond === null) return true;
    this.#allowance = Math.min(
      this.#allowance + ((nowMs - this.#sinceMs) / 1000) * this.bytesPerSecond,
      this.bytesPerSecond,
    );
    this.#sinceMs = nowMs;
    return this.#allowance > 0;
  }

  copied(bytes: number): void {
    if (this.bytesPerSecond !== null) this.#allowance -= bytes;
    this.#copied += bytes;
  }

  /** To be called now and then. */
  sample(nowMs: number): void {
    const samples = this.#samples;
    const last = samples.at(-1);
    if (last !== undefined && nowMs - last.atMs < 250) return;
    samples.push({ atMs: nowMs, bytes: this.#copied });
    while (samples.length > 2 && nowMs - samples[0]!.atMs > limits.rateOverMs) samples.shift();
  }

  restart(nowMs: number): void {
    this.#samples.length = 0;
    this.#samples.push({ atMs: nowMs, bytes: this.#copied });
  }

  get rate(): number {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.atMs === first.atMs) return 0;
    return (last.bytes - first.bytes) / ((last.atMs - first.atMs) / 1000);
  }
}
