// The real appliance as a process of its own, and its command line, for tests.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const START_MS_MAX = 30_000;

/** Another one than ourselves. */
export interface User {
  uid: number;
  gid: number;
}

/** Who may nothing that root may. */
export const NOBODY: User = { uid: 65_534, gid: 65_534 };

let copied: string | null = null;

/** Where a user finds this repository: in a copy, when it lies in a folder that is closed to others. */
export function rootFor(user: User | Record<string, never>): string {
  if (!('uid' in user)) return ROOT;
  if (copied !== null) return copied;
  const needed = `test -r '${ROOT}/services/appliance/main.ts' && test -x '${ROOT}/node_modules/.bin/node'`;
  if (spawnSync('/bin/sh', ['-c', needed], { ...user, cwd: '/' }).status === 0) return ROOT;
  const folder = mkdtempSync(`${tmpdir()}/mim-test-`);
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  copied = `${folder}/repository`;
  execFileSync('cp', ['-r', '--preserve=links', ROOT, copied]);
  execFileSync('chmod', ['-R', 'a+rX', folder]);
  return copied;
}

export interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** The environment without what a developer's shell may have set for an appliance of theirs. */
export function cleanEnvironment(more: Record<string, string> = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(MIM|OTEL)_/.test(name) && name !== 'NODE_TEST_CONTEXT',
  );
  return {
    ...Object.fromEntries(kept),
    PATH: pathIn(ROOT),
    ...more,
  };
}

function pathIn(root: string): string {
  return `${root}/node_modules/.bin:${process.env['PATH']}:/usr/sbin:/sbin`;
}

/** Runs a program to its end. A tool that is missing fails the test with what to do. */
export function run(
  program: string,
  args: readonly string[],
  options: { env?: Record<string, string>; input?: string | Uint8Array; cwd?: string; user?: User } = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const { env, user = {}, cwd = rootFor(user) } = options;
    const child = spawn(program, args, { env: cleanEnvironment(env), cwd, ...user });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('latin1').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', (cause) =>
      reject(new Error(`${program} can't be run; \`npm test\` installs it`, { cause })),
    );
    child.on('close', (status) => resolve({ status, stdout, stderr }));
    child.stdin.on('error', () => {}); // a program that does not read its input
    child.stdin.end(options.input ?? '');
  });
}

/** As `run`; fails the test unless the status is 0. Its standard output. */
export async function succeed(
  program: string,
  args: readonly string[],
  options: Parameters<typeof run>[2] = {},
): Promise<string> {
  const { status, stdout, stderr } = await run(program, args, options);
  assert.equal(
    status,
    0,
    `${program} ${args.join(' ')} ended with ${status}\n${stdout.slice(-2000)}\n${stderr.slice(-2000)}`,
  );
  return stdout;
}

/** What people and scripts do with a running appliance, whatever it is made of. */
export class ApiUser {
  nbd = '';
  api = '';

  uri(name: string): string {
    return `${this.nbd}/${name}`;
  }

  mim(...args: string[]): Promise<Ran> {
    return run(process.execPath, ['services/mim/main.ts', '--api', this.api, ...args]);
  }

  /** The answer of a command that must succeed, in JSON. */
  async json<T>(...args: string[]): Promise<T> {
    const { status, stdout, stderr } = await this.mim('--json', ...args);
    assert.equal(status, 0, `mim ${args.join(' ')}: ${stderr}`);
    return JSON.parse(stdout) as T;
  }

  get<T>(path: string): Promise<T> {
    return this.#call('GET', path, {});
  }

  post<T>(path: string, body: unknown): Promise<T> {
    return this.#call('POST', path, {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  }

  async delete(path: string): Promise<void> {
    await this.#call('DELETE', path, {});
  }

  async #call<T>(method: string, path: string, request: RequestInit): Promise<T> {
    const answer = await fetch(`${this.api}/v1${path}`, { method, ...request });
    const text = await answer.text();
    assert.ok(answer.ok, `${method} ${path}: ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }
}

export class ApplianceProcess extends ApiUser {
  readonly #child: ChildProcess;
  readonly ended: Promise<number | null>;
  output = '';
  /** Where it tells metrics; empty: it was not asked to. */
  metrics = '';

  private constructor(child: ChildProcess) {
    super();
    this.#child = child;
    this.ended = new Promise((resolve) => child.on('close', (status) => resolve(status)));
  }

  static async start(
    dataDirectory: string,
    env: Record<string, string> = {},
    user: User | Record<string, never> = {},
  ): Promise<ApplianceProcess> {
    // What `npm start` runs, without npm in between.
    const { scripts } = JSON.parse(readFileSync(`${ROOT}/package.json`, 'utf8')) as {
      scripts: { start: string };
    };
    const child = spawn('/bin/sh', ['-c', `exec env ${scripts.start}`], {
      ...{ cwd: rootFor(user), ...user },
      env: cleanEnvironment({
        PATH: pathIn(rootFor(user)),
        MIM_DATA_DIR: dataDirectory,
        MIM_NBD_LISTEN: '127.0.0.1:0',
        MIM_API_LISTEN: '127.0.0.1:0',
        ...env,
      }),
    });
    const started = new ApplianceProcess(child);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(new Error(`the appliance did not start:\n${started.output}`));
      }, START_MS_MAX);
      const take = (text: string): void => {
        started.output += text;
        if (!started.output.includes('Ctrl-C')) return;
        clearTimeout(timer);
        resolve();
      };
      child.stdout.setEncoding('utf8').on('data', take);
      child.stderr.setEncoding('utf8').on('data', take);
      void started.ended.then((status) => {
        clearTimeout(timer);
        reject(new Error(`the appliance ended with ${status}:\n${started.output}`));
      });
    });
    started.nbd = /disks \(NBD\)\s+(\S+)/.exec(started.output)![1]!;
    started.api = /API \(HTTP\)\s+(\S+)\/v1/.exec(started.output)![1]!;
    started.metrics = /metrics \(HTTP\)\s+(\S+)/.exec(started.output)?.[1] ?? '';
    return started;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** As Ctrl-C does; the exit status. */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGINT');
    return await this.ended;
  }
}

/** A folder for one test; removed after it. */
export async function withFolder(act: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-test-`);
  try {
    await act(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** An appliance on a folder of its own; killed and removed after the test, whatever happens. */
export async function withAppliance(
  env: Record<string, string>,
  act: (appliance: ApplianceProcess, folder: string) => Promise<void>,
  user?: User,
): Promise<void> {
  await withFolder(async (folder) => {
    if (user !== undefined) chownSync(folder, user.uid, user.gid);
    const appliance = await ApplianceProcess.start(`${folder}/data`, env, user);
    try {
      await act(appliance, folder).catch((error: unknown) => {
        if (appliance.running) throw error;
        throw new Error(`the appliance has ended in the middle:\n${appliance.output.slice(-4000)}`, {
          cause: error,
        });
      });
      assert.equal(await appliance.stop(), 0, appliance.output);
    } finally {
      appliance.kill();
      await appliance.ended;
    }
  });
}
