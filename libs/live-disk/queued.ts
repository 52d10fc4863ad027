// What waits in a journal: commands and marks to be stored, in order, and those that wait for stable storage.
import { MidmirrorError } from '@midmirror/basis';
import { Errno, type WriteCommand } from '@midmirror/block-device';

/** A mark waits in the same queue as the writes, so that its place among them is exact. */
export interface QueuedMark {
  kind: 'mark';
  bytes: Uint8Array;
  resolve(point: { seq: number; timeNs: bigint }): void;
  reject(error: MidmirrorError): void;
}

export type Queued = WriteCommand | QueuedMark;

export interface CommitWaiter {
  seq: number;
  command: WriteCommand | null;
  done: ((error: MidmirrorError | null) => void) | null;
}

/** In order; what has been taken is let go of now and then, not at each step. */
export class JournalQueue {
  #items: Queued[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: Queued): void {
    this.#items.push(item);
  }

  at(index: number): Queued {
    return this.#items[this.#head + index]!;
  }

  drop(count: number): void {
    this.#head += count;
    if (this.#head === this.#items.length) this.#items.length = 0;
    else if (this.#head > 1024) this.#items.splice(0, this.#head);
    else return;
    this.#head = 0;
  }

  refuseAll(errno: number, reason: string): void {
    const items = this.#items.slice(this.#head);
    this.#items = [];
    this.#head = 0;
    for (const item of items) {
      if (item.kind !== 'mark') item.complete(errno);
      else
        item.reject(
          new MidmirrorError(
            errno === Errno.ENOSPC ? 'no-space' : 'unavailable',
            `the mark can't be journaled: ${reason}`,
          ),
        );
    }
  }
}
