// Runs one check in a child process: apart from the rest as far as the machine lets us, within limits of time, memory,
// processes, output and space, and gone with all that it started when it ends, however that went. Exit status 0 is good,
// 1 bad, 125 can't tell; anything else can't tell, and the reason says what it was.
import { type ChildProcess, spawn } from 'node:child_process';
import { statfs } from 'node:fs/promises';
import { constants } from 'node:os';
import { performance } from 'node:perf_hooks';
import { messageOf, printBytes } from '@midmirror/basis';
import { type CheckLimits, checkLimits, runnerLimits } from '../limits.ts';
import { type BegunRun, beginRun } from './begun-runs.ts';
import { type CheckPlan, type CheckResult, ExitStatus } from './check-plan.ts';
import type { Isolation } from './isolation.ts';
import { KeptOutput } from './kept-output.ts';
import { killIfThere, killMarked, MARK, markedProcesses } from './marked-processes.ts';
import { scratchUse } from './scratch-use.ts';

export interface RunnerOptions {
  /** Names what is begun, for the cleaning up after a crash. */
  stateDirectory: string;
  isolation: Isolation;
  /** The operator's, before those of the plan. */
  limits?: Partial<CheckLimits>;
  /** Stops the check: it can't tell. */
  signal?: AbortSignal;
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Joins the control groups, then becomes the program. */
const JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 126; shift; done; shift; exec "$@"';
/**
 * First process of its namespace: the kernel keeps signals from that one, so it is not the check itself. Its namespace has
 * a copy of each mount; of other disks' they would be held open for as long as the check runs, so they go: all that come
 * by FUSE or lie on loop devices but the folder that is named first.
 */
const FIRST = `
ip link set lo up 2>/dev/null
keep=$1; shift
while read -r from at type _; do
  case "$type $from" in fuse*|*\\ /dev/loop*|*\\ /dev/nbd*) ;; *) continue ;; esac
  at=$(printf %b "$at")
  case "$at/" in "$keep"/*) continue ;; esac
  umount -l "$at" 2>/dev/null
done </proc/self/mounts
"$@"; exit $?`;
/** No path begins so. */
const NOTHING = '-';
const READ_ONLY_CAPABILITIES = '-all,+dac_read_search';

/** `plan` gets the run's own directory: for sockets and settings that the check is to find there. */
export async function runCheck(
  plan: CheckPlan | ((run: { scratch: string }) => CheckPlan | Promise<CheckPlan>),
  options: RunnerOptions,
): Promise<CheckResult> {
  const run = beginRun(options.stateDirectory, options.isolation.groups);
  const result = await (async (): Promise<CheckResult> => {
    try {
      options.signal?.throwIfAborted();
      const made = typeof plan === 'function' ? await plan(run) : plan;
      return await new RunningCheck(run, made, options).ended();
    } catch (error) {
      return neverRan(`the check can't be started: ${messageOf(error)}`);
    }
  })();
  return { ...result, left: await run.end() };
}

function neverRan(reason: string): CheckResult {
  return {
    verdict: 'cannot-tell',
    reason,
    output: '',
    outputBytes: 0,
    durationMs: 0,
    exitStatus: null,
    memoryBytesPeak: null,
    left: [],
  };
}

class RunningCheck {
  readonly #run: BegunRun;
  readonly #plan: CheckPlan;
  readonly #isolation: Isolation;
  readonly #limits: CheckLimits;
  readonly #output: KeptOutput;
  readonly #signal: AbortSignal | undefined;
  readonly #begunMs = performance.now();
  #child: ChildProcess | null = null;
  /** Why it was stopped. */
  #stopped: string | null = null;

  constructor(run: BegunRun, plan: CheckPlan, { isolation, limits, signal }: RunnerOptions) {
    this.#run = run;
    this.#plan = plan;
    this.#isolation = isolation;
    this.#limits = { ...checkLimits, ...plan.limits, ...limits };
    this.#output = new KeptOutput(this.#limits.outputBytesKept);
    this.#signal = signal;
  }

  async ended(): Promise<CheckResult> {
    this.#run.group.make(this.#limits);
    const { command, args } = this.#command();
    const child = spawn(command, args, {
      cwd: this.#run.scratch,
      env: this.#environment(),
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    const exit = Promise.withResolvers<{ status: number | null; signal: NodeJS.Signals | null }>();
    const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
    child.once('exit', (status, signal) => exit.resolve({ status, signal }));
    child.once('error', (error) => exit.reject(error));
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (bytes: Buffer) => this.#said(bytes));
    const timer = setTimeout(
      () => this.#stop(`it took more than ${this.#limits.timeMsMax / 1000} s and was stopped`),
      this.#limits.timeMsMax,
    );
    const abort = (): void => this.#stop('it was stopped before its end');
    this.#signal?.addEventListener('abort', abort);
    if (this.#signal?.aborted) abort();
    const watching = new AbortController();
    const watched = this.#watch(watching.signal);
    try {
      const { status, signal } = await exit.promise;
      // Where there is no namespace, what it has left behind may hold the output open.
      if (!this.#isolation.ownProcesses) await killMarked(this.#run.id);
      await Promise.race([closed, later(runnerLimits.outputEndMsMax)]);
      return this.#result(status, signal);
    } finally {
      clearTimeout(timer);
      this.#signal?.removeEventListener('abort', abort);
      watching.abort();
      await watched;
      child.stdout.destroy();
      child.stderr.destroy();
    }
  }

  #command(): { command: string; args: string[] } {
    const { program, args, privileges = 'all', keepMounted } = this.#plan;
    const { namespaces, groups } = this.#isolation;
    // Of a file's size the soft limit only: not all programs bear that they can't raise it.
    const limits = ['--core=0', `--fsize=${this.#limits.scratchBytesMax}:`];
    // Twice: a program whose own request for memory fails may end with 1, which would condemn. It is stopped before.
    if (groups.memory === null) limits.push(`--data=${2 * this.#limits.memoryBytesMax}`);
    const root = process.getuid?.() === 0;
    const fewer = root ? ['--bounding-set', READ_ONLY_CAPABILITIES, '--inh-caps', '-all'] : [];
    const reader = ['setpriv', '--no-new-privs', ...fewer, '--'];
    const own = [...(privileges === 'read' ? reader : []), program, ...args];
    const apart =
      namespaces.length === 0
        ? own
        : ['unshare', ...namespaces, '--', 'sh', '-c', FIRST, 'check', keepMounted ?? NOTHING, ...own];
    // It ends when this process does, however that goes.
    return {
      command: 'setpriv',
      args: [
        '--pdeathsig',
        'KILL',
        '--',
        'sh',
        '-c',
        JOIN,
        'check',
        ...this.#run.group.folders,
        '--',
        // The guests go first.
        ...['nice', '-n', String(runnerLimits.niceness)],
        'prlimit',
        ...limits,
        '--',
        ...apart,
      ],
    };
  }

  #environment(): NodeJS.ProcessEnv {
    const { scratch, id } = this.#run;
    const own = { PATH, HOME: scratch, TMPDIR: scratch, LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8' };
    return { ...own, ...this.#plan.environment, [MARK]: id };
  }

  #said(bytes: Buffer): void {
    this.#output.add(bytes);
    if (this.#output.totalBytes > this.#limits.outputBytesMax)
      this.#stop(`it said more than ${printBytes(this.#limits.outputBytesMax)}`);
  }

  #stop(reason: string): void {
    this.#stopped ??= reason;
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    killIfThere(-pid);
    killIfThere(pid);
    if (!this.#isolation.ownProcesses) void killMarked(this.#run.id);
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { memory, processes } = this.#isolation.groups;
    const counted = memory !== null && processes !== null;
    while (!signal.aborted) {
      await later(counted ? runnerLimits.watchMs : runnerLimits.watchUncountedMs, signal);
      if (signal.aborted) return;
      const { scratchBytesMax, scratchFilesMax, processesMax, memoryBytesMax } = this.#limits;
      const { scratch } = this.#run;
      const { copied } = this.#plan;
      const { bytes, files } = await scratchUse(scratch, scratchFilesMax, copied?.path);
      if (bytes + (copied?.bytes ?? 0) > scratchBytesMax)
        this.#stop(`it wrote more than ${printBytes(scratchBytesMax)} to its directory`);
      if (files + (copied?.files ?? 0) > scratchFilesMax)
        this.#stop(`it made more than ${scratchFilesMax} files in its directory`);
      const { scratchBytesSmall, scratchFreeBytesMin } = runnerLimits;
      if (bytes > scratchBytesSmall && (await freeBytes(scratch)) < scratchFreeBytesMin)
        this.#stop(
          `it had ${printBytes(bytes)} in its directory, and less than ${printBytes(scratchFreeBytesMin)} was left there`,
        );
      if (counted) continue;
      const running = await markedProcesses(this.#run.id);
      const residentBytes = running.reduce((sum, each) => sum + each.residentBytes, 0);
      if (running.length > processesMax) this.#stop(`it had more than ${processesMax} processes`);
      if (residentBytes > memoryBytesMax)
        this.#stop(`it used more than ${printBytes(memoryBytesMax)} of memory`);
    }
  }

  #result(status: number | null, signal: NodeJS.Signals | null): CheckResult {
    const { group } = this.#run;
    const said = { exitStatus: status, ...this.#verdict(status, signal) };
    return {
      ...said,
      output: this.#output.text(),
      outputBytes: this.#output.totalBytes,
      durationMs: Math.round(performance.now() - this.#begunMs),
      memoryBytesPeak: group.memoryBytesPeak(),
      left: [],
    };
  }

  /** A check that met a limit has no verdict, whatever it says: a part of it may have been killed. */
  #verdict(status: number | null, signal: NodeJS.Signals | null): Pick<CheckResult, 'verdict' | 'reason'> {
    const { group } = this.#run;
    const { memoryBytesMax, processesMax, scratchBytesMax } = this.#limits;
    const cannotTell = (reason: string) => ({ verdict: 'cannot-tell', reason }) as const;
    if (this.#stopped !== null) return cannotTell(this.#stopped);
    if (group.wasOutOfMemory())
      return cannotTell(`it used more than ${printBytes(memoryBytesMax)} of memory`);
    if (group.wasOutOfProcesses()) return cannotTell(`it had more than ${processesMax} processes`);
    if (status === ExitStatus.good) return { verdict: 'good', reason: 'the check found nothing wrong' };
    if (status === ExitStatus.bad) return { verdict: 'bad', reason: 'the check condemns it' };
    if (status === ExitStatus.cannotTell) return cannotTell('the check says that it can not tell');
    // A shell tells a signal as 128 and its number.
    const name = signal ?? signalOf(status);
    if (name === 'SIGXFSZ') return cannotTell(`it wrote a file of more than ${printBytes(scratchBytesMax)}`);
    if (name !== null) return cannotTell(`it was ended by ${name}`);
    if (status === 126 || status === 127)
      return cannotTell(`${this.#plan.program} is not there, or can't be run (exit status ${status})`);
    return cannotTell(
      `it ended with exit status ${status}, which says nothing (0 good, 1 bad, 125 can't tell)`,
    );
  }
}

/** Where that can't be told there is no such bound; the others hold. */
async function freeBytes(folder: string): Promise<number> {
  return await statfs(folder).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => Number.POSITIVE_INFINITY,
  );
}

function signalOf(status: number | null): string | null {
  if (status === null || status <= 128) return null;
  return Object.entries(constants.signals).find(([, number]) => number === status - 128)?.[0] ?? null;
}

function later(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
    function done(): void {
      clearTimeout(timer);
      // One that stayed would be one more for each look, for days.
      signal?.removeEventListener('abort', done);
      resolve();
    }
  });
}
