// Marks in the queue: what stands before one is answered by the appliance, then it is set there, then what stands
// behind it is sent. One after the other.
import { MidmirrorError } from '@midmirror/basis';
import { limits } from '../limits.ts';
import type { MarkPoint } from './ports.ts';
import type { SendQueue } from './send-queue.ts';

interface Wanted {
  name: string;
  kind: string;
  pos: number;
  done: (point: MarkPoint | Error) => void;
}

export interface MarkPorts {
  mark(name: string, kind: string, done: (point: MarkPoint | Error) => void): void;
}

export class Marks {
  readonly #queue: SendQueue;
  readonly #ports: MarkPorts;
  readonly #settled: () => void;
  #wanted: Wanted[] = [];
  #asking = false;
  #session = 0;

  constructor(queue: SendQueue, ports: MarkPorts, settled: () => void) {
    this.#queue = queue;
    this.#ports = ports;
    this.#settled = settled;
  }

  add(name: string, kind: string, done: (point: MarkPoint | Error) => void): void {
    if (this.#wanted.length >= limits.marksWaitingMax)
      return done(
        new MidmirrorError('conflict', `${this.#wanted.length} marks wait for the appliance already`, {
          hint: 'wait for some of them',
        }),
      );
    this.#wanted.push({ name, kind, pos: this.#queue.lastPos, done });
    this.#queue.gatePos = this.#wanted[0]!.pos;
  }

  step(): void {
    const [first] = this.#wanted;
    if (first === undefined || this.#asking || this.#queue.ackedPos < first.pos) return;
    this.#asking = true;
    const session = this.#session;
    this.#ports.mark(first.name, first.kind, (point) => {
      if (session !== this.#session) return;
      this.#asking = false;
      this.#wanted.shift();
      this.#queue.gatePos = this.#wanted[0]?.pos ?? Number.POSITIVE_INFINITY;
      first.done(point);
      this.#settled();
    });
  }

  /** The connection is lost: whether one that was asked for has been set is not known. */
  fail(error: Error): void {
    this.#session += 1;
    this.#asking = false;
    const wanted = this.#wanted;
    this.#wanted = [];
    this.#queue.gatePos = Number.POSITIVE_INFINITY;
    for (const { done } of wanted) done(error);
  }
}
