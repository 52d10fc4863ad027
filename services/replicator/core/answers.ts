// Answers to guests that wait for more than the primary's write: its stable storage, and the appliance.
import { Errno } from '@midmirror/block-device';
import type { EntryOwner } from './send-queue.ts';

export class Answer implements EntryOwner {
  readonly #answer: (errno: number) => void;
  #waitsFor: number;
  #errno: number = Errno.ok;

  constructor(waitsFor: number, answer: (errno: number) => void) {
    this.#waitsFor = waitsFor;
    this.#answer = answer;
  }

  wait(): void {
    this.#waitsFor += 1;
  }

  entryDone(): void {
    this.done(Errno.ok);
  }

  /** One of what it waits for has come; the first error counts. */
  done(errno: number): void {
    if (this.#errno === Errno.ok) this.#errno = errno;
    this.#waitsFor -= 1;
    if (this.#waitsFor === 0) this.#answer(this.#errno);
  }
}

/** Asks for stable storage together: while one sync is under way those who come wait for the next. */
export class SyncTurns {
  readonly #sync: (done: (errno: number) => void) => void;
  #waiters: ((errno: number) => void)[] = [];
  #underWay = false;

  constructor(sync: (done: (errno: number) => void) => void) {
    this.#sync = sync;
  }

  ask(done: (errno: number) => void): void {
    this.#waiters.push(done);
    this.#begin();
  }

  #begin(): void {
    if (this.#underWay || this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    this.#underWay = true;
    this.#sync((errno) => {
      this.#underWay = false;
      for (const done of waiters) done(errno);
      this.#begin();
    });
  }
}
