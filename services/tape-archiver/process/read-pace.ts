// Reads of the point at a pace that leaves guests their server. Once a second nothing of ours is under way for a moment,
// and a few small reads listen: where nobody else asks they are answered evenly, where guests keep the server busy some
// wait many times as long as the best. Then one read goes at a time, with rests between them, until it is quiet again.
import { setTimeout as pause } from 'node:timers/promises';
import type { MirrorSource } from '@midmirror/restore';
import { limits } from './limits.ts';

export interface PaceEdges {
  /** Reads a few bytes of the point. */
  probe: () => Promise<void>;
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
} = limits.pace;

export class ReadPace {
  readonly #probe: () => Promise<void>;
  readonly #nowMs: () => number;
  readonly #pauseMs: (ms: number) => Promise<void>;
  #bestMs = Number.POSITIVE_INFINITY;
  #busy = true;
  #heardMs = Number.NEGATIVE_INFINITY;
  #underWay = 0;
  /** Reads begin in its turn: while it listens or rests they wait. */
  #gate: Promise<void> = Promise.resolve();
  #drained: (() => void) | null = null;

  constructor({ probe, nowMs = () => performance.now(), pauseMs = pause }: PaceEdges) {
    this.#probe = probe;
    this.#nowMs = nowMs;
    this.#pauseMs = pauseMs;
  }

  /** Guests are busy, as far as is known. */
  get busy(): boolean {
    return this.#busy;
  }

  async read(read: () => Promise<void>): Promise<void> {
    const begun = this.#gate.then(() => this.#begin(read));
    // The next begins when this one may have company, or has ended and rested.
    this.#gate = begun.then(({ free }) => free).catch(() => {});
    const { done } = await begun;
    await done;
  }

  async #begin(read: () => Promise<void>): Promise<{ done: Promise<void>; free: Promise<void> }> {
    const everyMs = this.#busy ? listenAgainMs : listenEveryMs;
    if (this.#nowMs() - this.#heardMs >= everyMs) await this.#listen();
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

  async #listen(): Promise<void> {
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
    this.#drained = null;
    await this.#probe(); // the first one after a while finds nothing warm
    const heard: number[] = [];
    for (let i = 0; i < probes; i += 1) {
      await this.#pauseMs(probeRestMs);
      const startMs = this.#nowMs();
      await this.#probe();
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

export interface PacedReads {
  read(startBytes: number, lengthBytes: number, target: Uint8Array): Promise<void>;
  /** Resolves when no read is under way: before that the point is not to be closed. */
  ended(): Promise<void>;
}

/** Reads of a point at such a pace. */
export function pacedReads(source: Pick<MirrorSource, 'sizeBytes' | 'read'>): PacedReads {
  const probed = new Uint8Array(Math.min(limits.pace.probeBytes, source.sizeBytes));
  const pace = new ReadPace({ probe: () => source.read(0, probed.length, probed) });
  const underWay = new Set<Promise<void>>();
  return {
    async read(startBytes, lengthBytes, target) {
      const reading = pace.read(() => source.read(startBytes, lengthBytes, target));
      underWay.add(reading);
      try {
        await reading;
      } finally {
        underWay.delete(reading);
      }
    },
    async ended() {
      await Promise.allSettled(underWay);
    },
  };
}
