// A server as a child process: started, waited for, stopped or killed with all that it has started, and never
// outliving the process that started it.
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const LINES_KEPT_MAX = 20;
const GONE_POLL_MS = 5;

export interface ServerProcessOptions {
  program: string;
  args: readonly string[];
  cwd: string;
  /** Of another user, for programs that root may not run. */
  user?: { uid: number; gid: number };
  /** A line of its output that tells that it is ready. */
  ready: RegExp;
  startMsMax: number;
  log: (line: string) => void;
}

export interface ServerProcess {
  readonly pid: number;
  /** Sends the signal and waits; kills what has not ended within the deadline. */
  stop(signal: NodeJS.Signals, deadlineMs: number): Promise<void>;
  /** SIGKILL to it and its children, at once; resolves when they have gone. */
  kill(): Promise<void>;
}

/** Rejects with what the program said last when it ends or is not ready in time. */
export async function startServerProcess(options: ServerProcessOptions): Promise<ServerProcess> {
  const { program, args, cwd, user, ready, startMsMax, log } = options;
  // The kernel ends it when this process is gone, however that went.
  const child = spawn('setpriv', ['--pdeathsig', 'INT', '--', program, ...args], {
    cwd,
    ...user,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const said: string[] = [];
  const isReady = new Promise<void>((resolve) => {
    for (const output of [child.stdout, child.stderr])
      createInterface({ input: output }).on('line', (line) => {
        said.push(line);
        if (said.length > LINES_KEPT_MAX) said.shift();
        log(line);
        if (ready.test(line)) resolve();
      });
  });
  const running = new RunningProcess(child, exited);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`is not ready after ${startMsMax} ms`), startMsMax);
  });
  const failed = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    // Its last words may come after its end.
    child.once('close', (code, signal) => resolve(`ended with ${code ?? signal}`));
  });
  const failure = await Promise.race([isReady, late, failed]);
  clearTimeout(timer);
  if (failure === undefined) return running;
  if (child.pid !== undefined) await running.kill();
  throw new Error(`${program} ${failure}: ${said.join(' | ')}`);
}

class RunningProcess implements ServerProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;

  constructor(child: ChildProcess, exited: Promise<void>) {
    this.#child = child;
    this.#exited = exited;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async stop(signal: NodeJS.Signals, deadlineMs: number): Promise<void> {
    const timer = setTimeout(() => void this.kill(), deadlineMs);
    this.#child.kill(signal);
    await this.#exited;
    clearTimeout(timer);
  }

  async kill(): Promise<void> {
    // Frozen, it makes no more of them, and none of them hears of the end of another and says so to a client.
    this.#child.kill('SIGSTOP');
    const children = this.#ended() ? [] : childrenOf(this.pid);
    for (const pid of children) killIfThere(pid);
    this.#child.kill('SIGKILL');
    await this.#exited;
    while (children.some(isThere)) await new Promise((resolve) => setTimeout(resolve, GONE_POLL_MS));
  }

  #ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }
}

function childrenOf(pid: number): number[] {
  try {
    const list = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return list === '' ? [] : list.split(' ').map(Number);
  } catch {
    return []; // it has just ended
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended with its parent.
  }
}

/** A zombie is no longer there. */
function isThere(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
