// Who uses the library at this moment. Writing an archive, and on a drive reading too, takes all of it for long: such
// work waits for its turn, and what is short is refused meanwhile instead of waiting for hours.
import { MidmirrorError } from '@midmirror/basis';

export class LibraryUse {
  readonly #url: string;
  /** What has it alone. */
  #holder: string | null = null;
  #users = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(url: string) {
    this.#url = url;
  }

  /** Waits until nobody else uses it, or for `signal`. `what` is told to those who are refused. */
  async alone<T>(what: string, signal: AbortSignal, act: () => Promise<T>): Promise<T> {
    while (this.#holder !== null || this.#users > 0) await this.#change(signal);
    signal.throwIfAborted();
    this.#holder = what;
    try {
      return await act();
    } finally {
      this.#holder = null;
      this.#changed();
    }
  }

  /** Beside others who do so; `locked` when one has it alone. */
  async shared<T>(act: () => Promise<T>): Promise<T> {
    const give = this.hold();
    try {
      return await act();
    } finally {
      give();
    }
  }

  /** As `shared`, until what comes back is called. */
  hold(): () => void {
    this.refuseHeld();
    this.#users += 1;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#users -= 1;
      this.#changed();
    };
  }

  /** Throws `locked` when one has it alone. */
  refuseHeld(): void {
    if (this.#holder === null) return;
    throw new MidmirrorError('locked', `the tape library ${this.#url} is in use: ${this.#holder}`, {
      hint: 'wait until that job has ended, or cancel it: `mim tape jobs`',
    });
  }

  #change(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(changed), 1);
        reject(signal.reason);
      };
      const changed = (): void => {
        signal.removeEventListener('abort', abort);
        resolve();
      };
      this.#waiting.push(changed);
      signal.addEventListener('abort', abort, { once: true });
    });
  }

  #changed(): void {
    for (const each of this.#waiting.splice(0)) each();
  }
}
