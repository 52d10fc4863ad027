// For how long others have been silent, as heard by this node: on its own clock, and only while NATS was heard
// without a gap. NATS is heard when a node's own entry comes back to it, behind all that was written before it.
export class Silence {
  readonly #gapMsMax: number;
  /** Since when NATS has been heard without a gap. */
  #fromMs = 0;
  #heardMs = 0;

  constructor(gapMsMax: number) {
    this.#gapMsMax = gapMsMax;
  }

  get heardMs(): number {
    return this.#heardMs;
  }

  /** Everything has been looked at anew. */
  begin(nowMs: number): void {
    this.#fromMs = nowMs;
    this.#heardMs = nowMs;
  }

  heard(nowMs: number): void {
    if (nowMs - this.#heardMs > this.#gapMsMax) this.#fromMs = nowMs;
    this.#heardMs = nowMs;
  }

  /** `due`: so long by the clock, but NATS has not been heard since; it may be NATS that is silent. */
  of(changedMs: number, silenceMs: number, nowMs: number): 'no' | 'due' | 'yes' {
    const endMs = Math.max(this.#fromMs, changedMs) + silenceMs;
    if (this.#heardMs >= endMs) return 'yes';
    return nowMs >= endMs ? 'due' : 'no';
  }
}
