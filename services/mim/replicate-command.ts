// mim replicate: a replicator in this process, until Ctrl-C.
import { MidmirrorError, parseBytes, printBytes } from '@midmirror/basis';
import { printAddress, serverUri, exportUri } from '@midmirror/nbd';
import type { Mode, Replicator, ReplicatorStatus } from '@midmirror/replicator';
import { listen, log } from '@midmirror/runtime';
import { type Command, Option } from 'commander';
import { printSeconds } from './output.ts';
import type { Session } from './session.ts';

interface Given {
  primary: string;
  to: string;
  listen: string;
  mode: 'async' | 'sync';
  onLoss: 'continue' | 'block';
  throttle?: string;
  queue?: string;
  resync?: 'full';
  group?: string;
}

/** How often the copying is told of: as lines, and in place on a terminal. */
const LINE_MS = 5000;
const TERMINAL_MS = 500;

export function replicateCommand(program: Command, open: () => Session): void {
  program
    .command('replicate')
    .description('serve a primary to its host, and send every write to a volume of the appliance too')
    .requiredOption('--primary <path>', 'the file or block device that holds the data')
    .requiredOption('--to <uri>', 'the volume, as nbd://host:port/volume')
    .requiredOption('--listen <address>', 'where the host connects (NBD): host:port or unix:/path')
    .addOption(
      new Option('--mode <mode>', 'whether writes are answered when the primary has them, or both')
        .choices(['async', 'sync'])
        .default('async'),
    )
    .addOption(
      new Option('--on-loss <what>', 'with --mode sync: what writes do while the appliance is away')
        .choices(['continue', 'block'])
        .default('continue'),
    )
    .option('--throttle <rate>', 'copy at most so much a second, such as 50MB/s; writes are never slowed')
    .option('--queue <bytes>', 'memory for writes on their way to the appliance', '64MiB')
    .addOption(new Option('--resync <what>', 'compare all of it, whatever is known').choices(['full']))
    .option('--group <name>', 'mark its moments together with those of others of this name')
    .action(async (given: Given) => {
      const session = open();
      const apiGiven = program.getOptionValueSource('api') !== 'default';
      await replicate(session, given, apiGiven ? program.opts<{ api: string }>().api : undefined);
    });
}

async function replicate(session: Session, given: Given, api: string | undefined): Promise<void> {
  // Loaded here: no other command needs them.
  const { defaultApi, observeReplicator, replicatorLimits, startControlServer, startReplicator } =
    await import('@midmirror/replicator');
  const { readConfig, telemetryOptions } = await import('@midmirror/service');
  const { startTelemetry } = await import('@midmirror/telemetry');
  const config = readConfig('replicator', process.env);
  const stopping = signalled();
  const stateDirectory = config.MIM_REPLICATOR_DIR;
  const told = new Teller(session);
  const replicator = await startReplicator({
    primary: given.primary,
    to: given.to,
    listen: listen({ host: '127.0.0.1', port: 0 }).parse(given.listen, '--listen'),
    ...(api === undefined ? {} : { api }),
    stateDirectory,
    mode: given.mode,
    onLoss: given.onLoss,
    queueBytes: parseBytes(given.queue ?? '64MiB', '--queue'),
    throttleBytesPerSecond: throttleOf(given.throttle),
    resyncFull: given.resync === 'full',
    log: told.log,
    onMode: (mode) => told.mode(mode),
  });
  const closing: (() => Promise<unknown>)[] = [() => replicator.stop()];
  try {
    const control = await startControlServer(replicator, {
      stateDirectory,
      group: given.group ?? null,
      api: api ?? defaultApi(given.to),
    });
    closing.push(() => control.close());
    const watched = await startTelemetry(telemetryOptions(config, process.env, 'midmirror-replicator'));
    closing.push(
      () => watched.stopMetrics(),
      () => watched.stopTraces(),
    );
    observeReplicator(replicator, watched.telemetry);
    told.started(replicator, watched.address);
    await stopping;
    told.stopping();
  } finally {
    const late = setTimeout(() => {
      told.log('stopped at the deadline: what was not sent is copied at the next start');
      process.exit(0);
    }, replicatorLimits.stopMsMax + 2000);
    for (let close = closing.pop(); close !== undefined; close = closing.pop()) await close();
    clearTimeout(late);
  }
  told.stopped();
}

function throttleOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  const bytes = parseBytes(text.replace(/\/s$/i, ''), '--throttle');
  if (bytes >= 1024) return bytes;
  throw new MidmirrorError('bad-request', `--throttle: "${text}" is less than 1 KiB a second`, {
    hint: 'write it as 50MB/s; without --throttle it copies as fast as it can',
  });
}

/** Resolves at the first of the signals that end a program in order. */
function signalled(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => resolve());
  });
}

const WORDS: Readonly<Record<Mode, string>> = {
  connecting: 'the appliance is away: the host goes on, what it writes is noted and copied later',
  overrun: 'the queue is full or a write has failed: what is queued is sent, the rest is copied then',
  'opening-gap': 'asking the appliance to note that moments will be missing',
  'catching-up': 'catching up',
  'closing-gap': 'all is copied, the gap is being closed',
  replicating: 'every write is sent: every moment from now on can be had back',
  stopped: 'stopped',
};

/** Tells people, or programs line by line, what a replicator is about. */
class Teller {
  readonly #session: Session;
  readonly #terminal = process.stderr.isTTY === true;
  #replicator: Replicator | null = null;
  #timer: NodeJS.Timeout | null = null;
  #toldMs = 0;
  #first: Mode | null = null;

  constructor(session: Session) {
    this.#session = session;
  }

  readonly log = (message: string): void => {
    this.#session.progress('');
    if (this.#session.json) this.#line('log', { message });
    else log(message);
  };

  started(replicator: Replicator, metrics: string | null): void {
    this.#replicator = replicator;
    const { address, volume } = replicator;
    const uri = exportUri(serverUri(address), volume);
    const status = replicator.status();
    if (this.#session.json) this.#line('started', { uri, metrics, ...status });
    else {
      this.#say(`disk (NBD)      ${uri}`);
      if (metrics !== null) this.#say(`metrics (HTTP)  ${metrics}`);
      this.#say(`${status.primary} is served at ${printAddress(address)} and replicated to ${status.to}.`);
      this.#say('Stop it with Ctrl-C.');
    }
    if (this.#first !== null) this.mode(this.#first);
    const everyMs = this.#terminal && !this.#session.json ? TERMINAL_MS : LINE_MS;
    this.#timer = setInterval(() => this.#progress(), everyMs);
  }

  mode(mode: Mode): void {
    if (this.#replicator === null) {
      this.#first = mode;
      return;
    }
    const status = this.#replicator.status();
    this.#session.progress('');
    if (this.#session.json) this.#line('mode', { ...status, mode });
    else log(mode === 'catching-up' ? `catching up: ${behindOf(status)}` : WORDS[mode]);
  }

  stopping(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#session.progress('');
    if (!this.#session.json) this.#say('Stopping: what is queued is sent, everything goes to disk.');
  }

  stopped(): void {
    const status = this.#replicator!.status();
    if (this.#session.json) this.#line('stopped', status);
    else if (status.bytesBehind === 0) this.#say('Stopped; the appliance has everything.');
    else this.#say(`Stopped; ${printBytes(status.bytesBehind)} are copied at the next start.`);
  }

  #progress(): void {
    const status = this.#replicator!.status();
    if (status.mode !== 'catching-up' && !(status.mode === 'connecting' && status.bytesBehind > 0)) return;
    if (this.#session.json) return this.#line('progress', status);
    const text = `${status.mode === 'connecting' ? 'the appliance is away' : 'catching up'}: ${behindOf(status)}`;
    if (this.#terminal) return this.#session.progress(text);
    const nowMs = performance.now();
    // Away for hours is not a line each few seconds.
    if (status.mode === 'connecting' && nowMs - this.#toldMs < 60_000) return;
    this.#toldMs = nowMs;
    log(text);
  }

  #line(event: string, what: object): void {
    process.stdout.write(`${JSON.stringify({ event, time: new Date().toISOString(), ...what })}\n`);
  }

  #say(text: string): void {
    process.stdout.write(`${text}\n`);
  }
}

function behindOf({ bytesBehind, sizeBytes, bytesPerSecond, secondsLeft }: ReplicatorStatus): string {
  const rate = bytesPerSecond > 0 ? `, ${printBytes(bytesPerSecond)}/s` : '';
  const left = secondsLeft === null ? '' : `, ${printSeconds(secondsLeft)} left`;
  return `${printBytes(bytesBehind)} of ${printBytes(sizeBytes)} to compare${rate}${left}`;
}
