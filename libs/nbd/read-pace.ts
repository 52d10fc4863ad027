// Reads of an export at a pace that leaves guests its server. Once a second nothing of ours is under way for a moment,
// and a few small reads listen: where nobody else asks they are answered evenly, where guests keep the server busy some
// wait many times as long as the best. Then one read goes at a time, with rests between them, until it is quiet again.
import { setTimeout as pause } from 'node:timers/promises';
import { readPaceLimits } from './limits.ts';

export interface PaceEdges {
  nowMs?: () => number;
  pauseMs?: (ms: number) => Promise<void>;
}

const {
  listenEveryMs,
  listenAgainMs,
  probes,
  probeRestMs,
  busyRatio,
  busyMsMin,
  busyMsMax,
  busyShare,
  restMsMin,
  restMsMax,
} = readPaceLimits;

export class ReadPace {
  readonly #nowMs: () => number;
  readonly #pauseMs: (ms: number) => Promise<void>;
  #bestMs = Number.POSITIVE_INFINITY;
  #busy = true;
  #heardMs = Number.NEGATIVE_INFINITY;
  #underWay = 0;
  /** Reads begin in its turn: while it listens or rests they wait. */
  #gate: Promise<void> = Promise.resolve();
  #drained: (() => void) | null = null;

  constructor({ nowMs = () => performance.now(), pauseMs = pause }: PaceEdges = {}) {
    this.#nowMs = nowMs;
    this.#pauseMs = pauseMs;
  }

  /** Guests are busy, as far as is known. */
  get busy(): boolean {
    return this.#busy;
  }

  /** `probe` reads a few bytes of the same server. */
  async read(read: () => Promise<void>, probe: () => Promise<void>): Promise<void> {
    const begun = this.#gate.then(() => this.#begin(read, probe));
    // The next begins when this one may have company, or has ended and rested.
    this.#gate = begun.then(({ free }) => free).catch(() => {});
    const { done } = await begun;
    await done;
  }

  async #begin(
    read: () => Promise<void>,
    probe: () => Promise<void>,
  ): Promise<{ done: Promise<void>; free: Promise<void> }> {
    const everyMs = this.#busy ? listenAgainMs : listenEveryMs;
    if (this.#nowMs() - this.#heardMs >= everyMs) await this.#listen(probe);
    const startMs = this.#nowMs();
    this.#underWay += 1;
    const done = read().finally(() => {
      this.#underWay -= 1;
      if (this.#underWay === 0) this.#drained?.();
    });
    if (!this.#busy) return { done, free: Promise.resolve() };
    const rest = async (): Promise<void> => {
      const restMs = (this.#nowMs() - startMs) * (1 / busyShare - 1);
      await this.#pauseMs(Math.min(restMsMax, Math.max(restMsMin, restMs)));
    };
    return { done, free: done.then(rest, () => {}) };
  }

  async #listen(probe: () => Promise<void>): Promise<void> {
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
    this.#drained = null;
    await probe(); // the first one after a while finds nothing warm
    const heard: number[] = [];
    for (let i = 0; i < probes; i += 1) {
      await this.#pauseMs(probeRestMs);
      const startMs = this.#nowMs();
      await probe();
      heard.push(this.#nowMs() - startMs);
    }
    heard.sort((a, b) => a - b);
    this.#bestMs = Math.min(this.#bestMs, heard[1]!);
    // Without the worst one: a single long wait is somebody's collection of garbage, no guest.
    const meanMs = heard.slice(0, -1).reduce((sum, ms) => sum + ms, 0) / (probes - 1);
    this.#busy = meanMs > Math.min(busyMsMax, Math.max(busyMsMin, busyRatio * this.#bestMs));
    this.#heardMs = this.#nowMs();
  }
}
