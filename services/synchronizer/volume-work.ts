// The work of one volume, one thing at a time. What is done in the background has a name: while what it needs is away it
// is tried again, waiting longer each time up to a bound; a later one of the same name takes the place of one that waits.
import { againMs, isUnavailable, MidmirrorError, messageOf, ReasonLog, Turns } from '@midmirror/basis';

interface Waiting {
  act: () => Promise<unknown>;
  always: boolean;
  failures: number;
  timer: NodeJS.Timeout | null;
}

/** What is damaged is looked at again less often: it takes a person to mend it. */
const DAMAGED_FACTOR = 12;

export class VolumeWork {
  readonly #turns = new Turns();
  readonly #log: (message: string) => void;
  readonly #waiting = new Map<string, Waiting>();
  readonly #reasons = new Map<string, ReasonLog>();
  #stopped = false;

  constructor(log: (message: string) => void) {
    this.#log = log;
  }

  take<T>(act: () => Promise<T>): Promise<T> {
    return this.#turns.take(async () => {
      if (this.#stopped) throw new MidmirrorError('unavailable', 'the synchronizer is stopping');
      return await act();
    });
  }

  /** `always`: tried again after any error, not only while something is away. */
  background(name: string, act: () => Promise<unknown>, options: { always?: boolean } = {}): void {
    if (this.#stopped) return;
    const before = this.#waiting.get(name);
    if (before?.timer != null) clearTimeout(before.timer);
    const work: Waiting = {
      act,
      always: options.always ?? false,
      failures: before?.failures ?? 0,
      timer: null,
    };
    this.#waiting.set(name, work);
    this.#try(name, work);
  }

  /** Nothing more begins; what waits is given up. */
  stop(): void {
    this.#stopped = true;
    for (const { timer } of this.#waiting.values()) if (timer !== null) clearTimeout(timer);
    this.#waiting.clear();
  }

  /** Resolves when all that was begun before has ended. */
  async ended(): Promise<void> {
    await this.#turns.ended();
  }

  #try(name: string, work: Waiting): void {
    work.timer = null;
    this.#turns
      .take(async () => {
        // A later one of its name has come while it waited for its turn.
        if (this.#stopped || this.#waiting.get(name) !== work) return;
        await work.act();
        this.#reasons.get(name)?.over();
        if (this.#waiting.get(name) === work) this.#waiting.delete(name);
      })
      .catch((error: unknown) => this.#failed(name, work, error));
  }

  #failed(name: string, work: Waiting, error: unknown): void {
    if (this.#stopped) return;
    const reasons = this.#reasons.get(name) ?? new ReasonLog(this.#log);
    this.#reasons.set(name, reasons);
    reasons.say(`${name} waits: ${messageOf(error)}`);
    if (this.#waiting.get(name) !== work) return;
    if (!work.always && !isUnavailable(error)) {
      this.#waiting.delete(name);
      return;
    }
    work.failures += 1;
    const isDamage = error instanceof MidmirrorError && error.code === 'corrupt';
    const waitMs = againMs(work.failures) * (isDamage ? DAMAGED_FACTOR : 1);
    work.timer = setTimeout(() => this.#try(name, work), waitMs);
    work.timer.unref();
  }
}
