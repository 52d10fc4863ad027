// The bounded number of checks that run at once, for all volumes together. A volume with many checks waiting takes turns
// with the others; within a volume the first come is first served.
import { assert, MidmirrorError } from '@midmirror/basis';

interface Waiting {
  start(): void;
}

export class Slots {
  readonly #slotsMax: number;
  #taken = 0;
  /** Volumes that have checks waiting, the one whose turn is next first. */
  readonly #waiting = new Map<string, Waiting[]>();

  constructor(slotsMax: number) {
    assert(slotsMax >= 1, 'there is a slot');
    this.#slotsMax = slotsMax;
  }

  get taken(): number {
    return this.#taken;
  }

  get waitingCount(): number {
    return [...this.#waiting.values()].reduce((sum, queue) => sum + queue.length, 0);
  }

  /** Rejects with `unavailable` when `signal` is aborted while it waits; never once `act` has begun. */
  async within<T>(volume: string, signal: AbortSignal, act: () => Promise<T>): Promise<T> {
    await this.#take(volume, signal);
    try {
      return await act();
    } finally {
      this.#taken -= 1;
      this.#startNext();
    }
  }

  async #take(volume: string, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw stopping();
    if (this.#taken < this.#slotsMax) {
      this.#taken += 1;
      return;
    }
    const turn = Promise.withResolvers<void>();
    const queue = this.#waiting.get(volume) ?? [];
    const waiting: Waiting = { start: turn.resolve };
    queue.push(waiting);
    this.#waiting.set(volume, queue);
    const abort = (): void => {
      if (!queue.includes(waiting)) return; // its turn has come
      queue.splice(queue.indexOf(waiting), 1);
      if (queue.length === 0) this.#waiting.delete(volume);
      turn.reject(stopping());
    };
    signal.addEventListener('abort', abort);
    try {
      await turn.promise;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  #startNext(): void {
    const next = this.#waiting.entries().next().value;
    if (next === undefined) return;
    const [volume, queue] = next;
    // To the end of the turns.
    this.#waiting.delete(volume);
    const waiting = queue.shift()!;
    if (queue.length > 0) this.#waiting.set(volume, queue);
    this.#taken += 1;
    waiting.start();
  }
}

function stopping(): MidmirrorError {
  return new MidmirrorError('unavailable', 'the monitor is stopping');
}
