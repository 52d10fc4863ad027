// `mim replicate` as a process of its own, on a host's state directory: started again on the same after it was killed.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { Api } from '@midmirror/api';
import { cleanEnvironment, ROOT } from '../appliance/appliance-process.ts';

const START_MS_MAX = 20_000;
const LINES_KEPT_MAX = 200;
const POLL_MS = 20;

/** A line that it tells in JSON. */
export interface Told {
  event: string;
  mode?: string;
  message?: string;
  metrics?: string;
}

export interface ReplicatorPlace {
  /** Of sockets and state. */
  folder: string;
  primary: string;
  /** The volume's URI at the appliance, and its name in it. */
  to: string;
  volume: string;
  api: string;
  /** Where it tells metrics; by default it doesn't. */
  metricsListen?: string;
}

/** `MIM_REPLICATOR_DIR` of it. */
export function stateOf({ folder }: Pick<ReplicatorPlace, 'folder'>): string {
  return `${folder}/state`;
}

export class ReplicatorProcess {
  readonly #child: ChildProcess;
  readonly #state: string;
  readonly ended: Promise<number | null>;
  readonly uri: string;
  /** The latest of what it has said on either output. */
  readonly lines: string[] = [];
  /** All lines of its standard output. */
  readonly told: Told[] = [];
  /** All that it has told of, and when that arrived. */
  readonly modes: { mode: string; ms: number }[] = [];
  /** As it told last. */
  mode = '';
  /** Where it tells metrics; '' as long as it has not said. */
  metrics = '';
  #news = Promise.withResolvers<void>();

  private constructor(child: ChildProcess, uri: string, state: string) {
    this.#child = child;
    this.#state = state;
    this.uri = uri;
    this.ended = new Promise((resolve) => child.once('close', resolve));
    createInterface({ input: child.stderr! }).on('line', (line) => this.#keep(line));
    createInterface({ input: child.stdout! }).on('line', (line) => this.#take(line));
  }

  static async start(place: ReplicatorPlace, ...more: string[]): Promise<ReplicatorProcess> {
    const socket = `${place.folder}/replicator.sock`;
    rmSync(socket, { force: true }); // it is looked for below
    const { primary, to, volume, api, metricsListen } = place;
    const state = stateOf(place);
    const args = ['--json', '--api', api, 'replicate', '--primary', primary, '--to', to];
    const watched: Record<string, string> =
      metricsListen === undefined ? {} : { MIM_METRICS_LISTEN: metricsListen };
    const child = spawn(
      process.execPath,
      ['services/mim/main.ts', ...args, '--listen', `unix:${socket}`, ...more],
      { cwd: ROOT, env: cleanEnvironment({ MIM_REPLICATOR_DIR: state, ...watched }) },
    );
    const started = new ReplicatorProcess(child, `nbd+unix:///${volume}?socket=${socket}`, state);
    const deadline = performance.now() + START_MS_MAX;
    while (!existsSync(socket) && child.exitCode === null && performance.now() < deadline)
      await pause(POLL_MS);
    if (!existsSync(socket)) child.kill('SIGKILL');
    assert.ok(existsSync(socket), `the replicator listens:\n${started.lines.join('\n')}`);
    return started;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  /** As Ctrl-C does. */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGINT');
    return await this.ended;
  }

  /** As its control socket tells. */
  async status(): Promise<{ mode: string; bytesBehind: number }> {
    const [name] = readdirSync(this.#state).filter((each) => /^control-.*\.sock$/.test(each));
    return await new Api(`unix:${this.#state}/${name}`).json('GET', '/status');
  }

  async untilMode(mode: string, withinMs: number): Promise<void> {
    const deadline = performance.now() + withinMs;
    while (this.mode !== mode) {
      assert.ok(
        performance.now() < deadline && this.#child.exitCode === null,
        `the replicator is ${this.mode} and not ${mode}:\n${this.lines.slice(-20).join('\n')}`,
      );
      await pause(POLL_MS);
    }
  }

  /** The first line from `from` on that `is` what is waited for. */
  async until(is: (told: Told) => boolean, from = 0, ms = 30_000): Promise<Told> {
    const signal = AbortSignal.timeout(ms);
    for (;;) {
      const found = this.told.slice(from).find(is);
      if (found !== undefined) return found;
      if (signal.aborted || this.#child.exitCode !== null || this.#child.signalCode !== null)
        throw new Error(`it has not come\n${this.lines.slice(-20).join('\n')}`);
      await Promise.race([this.#news.promise, once(signal, 'abort'), this.ended]);
    }
  }

  async replicating(from = 0): Promise<void> {
    await this.until(({ event, mode }) => event === 'mode' && mode === 'replicating', from);
  }

  #keep(line: string): void {
    this.lines.push(`${new Date().toISOString()} ${line}`);
    if (this.lines.length > LINES_KEPT_MAX) this.lines.shift();
  }

  #take(line: string): void {
    this.#keep(line);
    const told = JSON.parse(line) as Told;
    this.told.push(told);
    this.#news.resolve();
    this.#news = Promise.withResolvers();
    this.metrics ||= told.metrics ?? '';
    const { mode = this.mode } = told;
    if (mode !== this.mode) this.modes.push({ mode, ms: performance.now() });
    if (this.modes.length > LINES_KEPT_MAX) this.modes.shift();
    this.mode = mode;
  }
}
