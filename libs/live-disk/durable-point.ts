// How far a journal is on stable storage, and since when what is not has been waiting for it. Pure.

export class DurablePoint {
  #seq: number;
  #timeNs: bigint;
  /** The round of group commit under way, or the last one. */
  #round: { seq: number; timeNs: bigint };
  /** Times of the first write in that round and of the first after it; 0: there is none. */
  #roundSinceNs = 0n;
  #restSinceNs = 0n;

  constructor(seq: number, timeNs: bigint) {
    this.#seq = seq;
    this.#timeNs = timeNs;
    this.#round = { seq, timeNs };
  }

  get seq(): number {
    return this.#seq;
  }

  /** Of the write `seq`. */
  get timeNs(): bigint {
    return this.#timeNs;
  }

  /** Time of the oldest write that waits; 0: none does. */
  get waitingSinceNs(): bigint {
    return this.#roundSinceNs === 0n ? this.#restSinceNs : this.#roundSinceNs;
  }

  stored(timeNs: bigint): void {
    if (this.#restSinceNs === 0n) this.#restSinceNs = timeNs;
  }

  /** What no round has begun with has been synced by other means: by sealing. */
  restIsDurable(): void {
    this.#restSinceNs = 0n;
  }

  /** A round begins that covers everything stored, up to `seq`. */
  begin(seq: number, timeNs: bigint): void {
    this.#round = { seq, timeNs };
    this.#roundSinceNs = this.#restSinceNs;
    this.#restSinceNs = 0n;
  }

  /** It has succeeded. One that has not leaves its writes waiting for good. */
  end(): void {
    this.#seq = Math.max(this.#seq, this.#round.seq);
    this.#timeNs = this.#round.timeNs;
    this.#roundSinceNs = 0n;
  }
}
