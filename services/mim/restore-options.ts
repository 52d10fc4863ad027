// The options of a restore or an export, and the question that they may make needless.
import { homedir } from 'node:os';
import { createInterface } from 'node:readline/promises';
import { MidmirrorError } from '@midmirror/basis';
import { type AwayOptions, limits } from '@midmirror/restore';
import { Option } from 'commander';
import { REPLICATOR_DIRECTORY } from './host-replicators.ts';
import type { SourceOptions } from './restore-source.ts';
import type { Session } from './session.ts';

/** Of this host. */
export function stateOption(): Option {
  return new Option('--state-dir <path>', 'records of restores to devices and NBD exports')
    .env('MIM_RESTORE_DIR')
    .default(`${homedir()}/.local/state/midmirror/restore`, '~/.local/state/midmirror/restore');
}

export function replicatorOption(): Option {
  return new Option('--replicator-dir <path>', 'what replicators of this host know')
    .env('MIM_REPLICATOR_DIR')
    .default(REPLICATOR_DIRECTORY);
}

export interface RestoreOptions {
  at?: string;
  to?: string;
  lastGood?: true;
  check?: string;
  inPlace?: true;
  yes?: true;
  dryRun?: true;
  verify: boolean;
  base?: string;
  allowLarger?: true;
  status?: true;
  instant?: string;
  connections: string;
  retryFor: string;
  stateDir: string;
  replicatorDir: string;
  /** Of a point that is on tape. */
  identity?: string;
}

export function sourceOptions(
  session: Session,
  options: { connections: string; retryFor: string },
): SourceOptions {
  return {
    connections: wholeOf(options.connections, '--connections', 1, limits.connectionsMax),
    ...awayOptions(session, options),
  };
}

export function awayOptions(session: Session, options: { retryFor: string }): AwayOptions {
  return {
    awayMsMax: wholeOf(options.retryFor, '--retry-for', 0, limits.awaySecondsMax) * 1000,
    onAway: (reason) => session.note(`waits for the appliance: ${reason}`),
  };
}

export function wholeOf(
  text: string,
  name: string,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new MidmirrorError(
    'bad-request',
    `${name}: "${text}" is not a whole number from ${min} ${max === Number.MAX_SAFE_INTEGER ? 'on' : `to ${max}`}`,
  );
}

/** At a terminal. A script is taken at its word, as by other tools that write disks. */
export async function ask(session: Session, question: string): Promise<void> {
  if (process.stdin.isTTY !== true || process.stderr.isTTY !== true) return;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    session.progress('');
    const answer = await terminal.question(`${question} [y/N] `);
    if (/^y(es)?$/i.test(answer.trim())) return;
  } finally {
    terminal.close();
  }
  throw new MidmirrorError('conflict', 'nothing was done');
}

/**
 * Runs what is worth nothing unless it ends: should the process be ended before, by a signal or because nobody reads
 * what it says, its status is not 0, and `words` are said.
 */
export async function toItsEnd(session: Session, words: string, act: () => Promise<void>): Promise<void> {
  const stopped = (signal: NodeJS.Signals): void => {
    session.progress('');
    session.note(words);
    for (const each of SIGNALS) process.off(each, stopped);
    process.kill(process.pid, signal);
  };
  for (const each of SIGNALS) process.on(each, stopped);
  process.exitCode = 1;
  try {
    await act();
    process.exitCode = 0;
  } finally {
    for (const each of SIGNALS) process.off(each, stopped);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
