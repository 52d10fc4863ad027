// Programs that help: run with limits, given no terminal, answering in one language and one time zone. What they print
// of somebody else's disk is bytes, never trusted.
import { type ChildProcess, spawn } from 'node:child_process';
import { basename } from 'node:path';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { limits } from './limits.ts';
import { printName } from './names.ts';

export interface Ran {
  status: number | null;
  stdout: Buffer;
  stderr: string;
}

export interface RunOptions {
  input?: string;
  stdoutBytesMax?: number;
}

/** A program that reads a hostile disk in this process's place, and what is kept from it. */
export interface Reader {
  program: string;
  /** Of prlimit, which bounds its memory; null: it is not here. */
  prlimit: string | null;
  /** The disk, open. The program finds it as `DISK`, wherever it lies and whoever else may not get there. */
  disk: number;
  /** Who it runs as; null: as we do. */
  user: number | null;
}

export const DISK = '/proc/self/fd/3';

function environment(more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const { PATH = '', HOME = '/' } = process.env;
  return { PATH: `${PATH}:/usr/sbin:/sbin`, HOME, LC_ALL: 'C.UTF-8', TZ: 'UTC', ...more };
}

/** In a group of its own: Ctrl-C at a terminal is for us, who end it when its turn comes. */
export function start(
  program: string,
  args: readonly string[],
  stdio: ('ignore' | 'pipe')[],
  env: Readonly<Record<string, string>> = {},
): ChildProcess {
  return spawn(program, args, { stdio, env: environment(env), detached: true, cwd: '/' });
}

function startReader(reader: Reader, args: readonly string[], stdin: 'ignore' | 'pipe'): ChildProcess {
  const { program, prlimit, disk, user } = reader;
  const bounds = [`--as=${limits.readerBytesMax}`, '--core=0', '--'];
  const [first, ...rest] = prlimit === null ? [program, ...args] : [prlimit, ...bounds, program, ...args];
  return spawn(first!, rest, {
    stdio: [stdin, 'pipe', 'pipe', disk],
    env: environment({}),
    detached: true,
    cwd: '/',
    ...(user === null ? {} : { uid: user, gid: user }),
  });
}

/** To its end. Rejects when it can't be run, prints too much or takes too long. */
export async function run(program: string, args: readonly string[]): Promise<Ran> {
  return await toItsEnd(start(program, args, ['ignore', 'pipe', 'pipe']), program, {});
}

export async function runReader(
  reader: Reader,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ran> {
  const child = startReader(reader, args, options.input === undefined ? 'ignore' : 'pipe');
  return await toItsEnd(child, reader.program, options);
}

async function toItsEnd(child: ChildProcess, program: string, options: RunOptions): Promise<Ran> {
  const { input, stdoutBytesMax = limits.errorBytesMax } = options;
  const errors = collectErrors(child);
  const parts: Buffer[] = [];
  let bytes = 0;
  let trouble: string | null = null;
  const giveUp = (why: string): void => {
    trouble ??= why;
    child.kill('SIGKILL');
  };
  child.stdout!.on('data', (part: Buffer) => {
    bytes += part.length;
    if (bytes > stdoutBytesMax) giveUp(`prints more than ${stdoutBytesMax} bytes`);
    else parts.push(part);
  });
  child.stdin?.on('error', () => {}); // it has ended without reading all: its status tells
  child.stdin?.end(input);
  const timer = setTimeout(
    () => giveUp(`does not end within ${limits.programMsMax / 1000} s`),
    limits.programMsMax,
  );
  try {
    const status = await ended(child, program);
    if (trouble !== null) throw new MidmirrorError('io', `${basename(program)} ${trouble}`);
    return { status, stdout: Buffer.concat(parts), stderr: errors() };
  } finally {
    clearTimeout(timer);
  }
}

/** As `run`; rejects unless its status is 0. */
export async function succeed(program: string, args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await run(program, args);
  if (status === 0) return stdout.toString();
  throw new MidmirrorError('io', failed(program, status, stderr));
}

export function failed(program: string, status: number | null, stderr: string): string {
  const words = stderr.trim().split('\n').map(printName).join(' ');
  return words === '' ? `${basename(program)} ended with ${status}` : words;
}

/** What it prints. It is ended when the reader stops. `check` is given its status and errors in the end. */
export async function* streamReader(
  reader: Reader,
  args: readonly string[],
  check: (status: number | null, stderr: string) => void,
): AsyncGenerator<Buffer> {
  const { program } = reader;
  const child = startReader(reader, args, 'ignore');
  const errors = collectErrors(child);
  const over = ended(child, program);
  over.catch(() => {});
  let silent = false;
  const timer = setTimeout(() => {
    silent = true;
    child.kill('SIGKILL');
  }, limits.silentMsMax);
  try {
    for await (const part of child.stdout!) {
      timer.refresh();
      yield part as Buffer;
      timer.refresh();
    }
    const status = await over;
    if (silent)
      throw new MidmirrorError(
        'io',
        `${basename(program)} has said nothing for ${limits.silentMsMax / 1000} s`,
      );
    check(status, errors());
  } finally {
    clearTimeout(timer);
    child.kill('SIGKILL');
    await over.catch(() => {});
  }
}

/** The last it says, as it says it. */
export function collectErrors(child: ChildProcess): () => string {
  let text = '';
  child.stderr!.setEncoding('utf8').on('data', (part: string) => {
    text = (text + part).slice(-limits.errorBytesMax);
  });
  return () => text;
}

function ended(child: ChildProcess, program: string): Promise<number | null> {
  return new Promise((resolve, reject) => {
    child.on('error', (cause) =>
      reject(new MidmirrorError('io', `${program} can't be run: ${messageOf(cause)}`, { cause })),
    );
    child.on('close', resolve);
  });
}
