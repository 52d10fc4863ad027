// `mim replicate` as a process, by the lines that it tells in JSON.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cleanEnvironment, ROOT } from '../appliance/appliance-process.ts';

export interface Told {
  event: string;
  mode?: string;
  message?: string;
  uri?: string;
  metrics?: string;
  bytesBehind?: number;
}

export class ToldReplicator {
  readonly #child: ChildProcess;
  readonly ended: Promise<number | null>;
  readonly told: Told[] = [];
  stderr = '';
  #wake = Promise.withResolvers<void>();

  constructor(args: readonly string[], env: Record<string, string>) {
    this.#child = spawn(process.execPath, ['services/mim/main.ts', '--json', 'replicate', ...args], {
      cwd: ROOT,
      env: cleanEnvironment(env),
    });
    this.ended = new Promise((resolve) =>
      this.#child.on('close', (status) => {
        resolve(status);
        this.#news();
      }),
    );
    let rest = '';
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) this.told.push(JSON.parse(line) as Told);
      this.#news();
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
  }

  #news(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  /** The first line from `from` on that `is` what is waited for. */
  async until(is: (told: Told) => boolean, from = 0, ms = 30_000): Promise<Told> {
    const signal = AbortSignal.timeout(ms);
    for (;;) {
      const found = this.told.slice(from).find(is);
      if (found !== undefined) return found;
      if (signal.aborted || this.#child.exitCode !== null || this.#child.signalCode !== null)
        throw new Error(
          `it has not come\n${this.told
            .slice(-20)
            .map((each) => JSON.stringify(each))
            .join('\n')}\n${this.stderr}`,
        );
      await Promise.race([this.#wake.promise, once(signal, 'abort'), this.ended]);
    }
  }

  async replicating(from = 0): Promise<void> {
    await this.until(({ event, mode }) => event === 'mode' && mode === 'replicating', from);
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async stop(): Promise<number | null> {
    this.#child.kill('SIGINT');
    return await this.ended;
  }
}
