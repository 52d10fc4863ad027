// The times of one batch on its way through a journal, for a trace. One batch is watched at a time, and only when
// somebody has asked: the others cost a look at a flag.
import type { WriteCommand } from '@midmirror/block-device';

/** Times are those of `performance.now()`. */
export interface BatchTimes {
  firstSeq: number;
  writes: number;
  dataBytes: number;
  /** When the first of its writes arrived. */
  arrivedMs: number;
  beganMs: number;
  storedMs: number;
  durableMs: number;
}

export class BatchWatch {
  /** The next batch with writes in it is to be watched. */
  armed = false;
  #times: BatchTimes | null = null;

  arm(): void {
    this.armed = true;
    this.#times = null;
  }

  began(batch: readonly WriteCommand[], firstSeq: number, dataBytes: number): void {
    const first = batch[0];
    this.#times = null;
    if (first === undefined) return;
    const beganMs = performance.now();
    const arrivedMs = first.arrivedMs ?? 0;
    this.#times = {
      ...{ firstSeq, writes: batch.length, dataBytes },
      ...{ arrivedMs: arrivedMs === 0 ? beganMs : arrivedMs, beganMs, storedMs: 0, durableMs: 0 },
    };
  }

  /** The batch that began last is stored; one that failed is followed by another that begins. */
  stored(): void {
    if (this.#times === null) return;
    this.#times.storedMs = performance.now();
    this.armed = false;
  }

  durable(seq: number): void {
    const times = this.#times;
    if (times !== null && times.storedMs > 0 && times.durableMs === 0 && times.firstSeq <= seq)
      times.durableMs = performance.now();
  }

  /** The watched batch if it lies in these writes and is durable. It is watched no more once they have gone by. */
  take(firstSeq: number, lastSeq: number): BatchTimes | null {
    const times = this.#times;
    if (times === null || times.firstSeq > lastSeq) return null;
    this.arm();
    return times.firstSeq >= firstSeq && times.durableMs > 0 ? times : null;
  }
}
