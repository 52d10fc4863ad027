// A QMP monitor of a QEMU process: commands and their answers, and events that are waited for.
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

const EVENT_MS_MAX = 30_000;

export interface QmpEvent {
  event: string;
  data?: Record<string, unknown>;
}

type Answer = { return: unknown } | { error: { class: string; desc: string } };

export class Qmp {
  readonly #socket: Socket;
  readonly #asked: ((answer: Answer) => void)[] = [];
  readonly #events: QmpEvent[] = [];
  #arrived = Promise.withResolvers<void>();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => {}); // QEMU has gone; whoever waits fails by its deadline
    createInterface({ input: socket }).on('line', (line) => this.#take(line));
  }

  static async connect(path: string): Promise<Qmp> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const qmp = new Qmp(socket);
    await qmp.execute('qmp_capabilities');
    return qmp;
  }

  /** Fails with QEMU's words when it refuses. */
  async execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const answer = await new Promise<Answer>((resolve) => {
      this.#asked.push(resolve);
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
    assert.ok('return' in answer, `${command}: ${JSON.stringify(answer)}`);
    return answer.return;
  }

  /** The next one of that name, also when it has come already; earlier ones of other names are passed over. */
  async event(name: string): Promise<QmpEvent> {
    const late = AbortSignal.timeout(EVENT_MS_MAX);
    const tooLate = new Promise<void>((resolve) => late.addEventListener('abort', () => resolve()));
    for (;;) {
      const at = this.#events.findIndex(({ event }) => event === name);
      if (at !== -1) return this.#events.splice(0, at + 1).at(-1)!;
      assert.ok(!late.aborted, `no ${name} came; ${JSON.stringify(this.#events)}`);
      await Promise.race([this.#arrived.promise, tooLate]);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(line: string): void {
    const message = JSON.parse(line) as QmpEvent | Answer | { QMP: unknown };
    if ('QMP' in message) return;
    if ('event' in message) {
      this.#events.push(message);
      this.#arrived.resolve();
      this.#arrived = Promise.withResolvers();
      return;
    }
    this.#asked.shift()!(message);
  }
}
