// Durations counted in buckets that are there from the start: to record one makes no object.

/** Upper bounds of the buckets in seconds; a last one takes what is longer. */
export const DURATION_BOUNDS_SECONDS: readonly number[] = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

export class Histogram {
  readonly #bounds = Float64Array.from(DURATION_BOUNDS_SECONDS);
  readonly #counts = new Float64Array(DURATION_BOUNDS_SECONDS.length + 1);
  #sum = 0;

  /** `times` at once. */
  record(seconds: number, times = 1): void {
    const bounds = this.#bounds;
    let at = 0;
    while (at < bounds.length && seconds > bounds[at]!) at += 1;
    this.#counts[at]! += times;
    this.#sum += seconds * times;
  }

  get sum(): number {
    return this.#sum;
  }

  get count(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /** Of each bucket alone. */
  get counts(): number[] {
    return [...this.#counts];
  }
}
