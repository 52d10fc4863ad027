// Guests' writes held for a moment, so that several volumes can be marked at one. Each hold ends by itself in time.

/** False: it had ended by itself before. */
export type Release = () => boolean;

interface Hold {
  untilMs: number;
  /** Null: it has been told. */
  granted: ((release: Release) => void) | null;
}

export class Holds {
  readonly #ended: () => void;
  readonly #holds = new Set<Hold>();

  constructor(ended: () => void) {
    this.#ended = ended;
  }

  get any(): boolean {
    return this.#holds.size > 0;
  }

  /** `granted` is called once nothing is under way any more. */
  add(untilMs: number, granted: (release: Release) => void): void {
    this.#holds.add({ untilMs, granted });
  }

  step(idle: boolean, nowMs: number): void {
    for (const hold of this.#holds) {
      if (nowMs >= hold.untilMs) this.#end(hold);
      if ((!idle && this.#holds.has(hold)) || hold.granted === null) continue;
      const { granted } = hold;
      hold.granted = null;
      granted(() => this.#end(hold));
    }
  }

  #end(hold: Hold): boolean {
    const was = this.#holds.delete(hold);
    if (was) this.#ended();
    return was;
  }
}
