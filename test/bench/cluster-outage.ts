// How fast events catch up after NATS was away under a steady load that goes on: writes that the index learns of a
// second, from when NATS takes connections again to when it has caught up, to writes that arise a second meanwhile.
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { cleanEnvironment } from '../appliance/appliance-process.ts';
import { BenchCluster } from './bench-cluster.ts';
import type { Figures } from './figures.ts';

const VOLUME = 'db';
const DISK_BYTES = 2 ** 30;
const OWNER = 'ingest-1';
/** Without NATS nothing syncs: the ring must hold what is written meanwhile, at 4 KiB and a descriptor each. */
const RING_BYTES_PER_WRITE = 6000;
const RING_BYTES_MIN = 2 ** 30;
/** Of writes: what the index always lacks, as a message comes after the next fdatasync only. */
const CAUGHT_UP_SECONDS = 0.25;
const LOOK_MS = 50;
const CATCH_UP_SECONDS_MAX = 300;

export interface OutageOptions {
  outageSeconds: number;
  iops: number;
  /** Of load before the outage. */
  seconds: number;
}

interface Look {
  atMs: number;
  written: number;
  indexed: number;
}

export async function outageFigures(figures: Figures, options: OutageOptions): Promise<void> {
  const writes = options.iops * (options.outageSeconds * 2 + 60);
  const ring = String(Math.max(RING_BYTES_MIN, writes * RING_BYTES_PER_WRITE));
  await BenchCluster.with({ MIM_JOURNAL_BYTES: ring }, { ingests: 1, onSockets: true }, async (cluster) => {
    await cluster.createAt(OWNER, VOLUME, DISK_BYTES);
    const load = new SteadyLoad(cluster.at(OWNER, VOLUME), options.iops);
    try {
      const looks = await outage(cluster, load, options);
      say(figures, options, looks);
    } finally {
      await load.stop();
    }
  });
}

interface Outage {
  before: Look;
  back: Look;
  /** When the index had learnt of something again. */
  first: Look;
  caughtUp: Look;
}

async function outage(
  cluster: BenchCluster,
  load: SteadyLoad,
  { outageSeconds, iops, seconds }: OutageOptions,
): Promise<Outage> {
  const look = async (): Promise<Look> => {
    load.check();
    // In this order: the index has what was written before, or it has not.
    const written = await cluster.written(OWNER, VOLUME);
    const { count: indexed } = await cluster.lag('stored');
    return { atMs: performance.now(), written, indexed };
  };
  await pause(seconds * 1000);
  const before = await look();
  await cluster.local.nats.kill();
  await pause(outageSeconds * 1000);
  await cluster.local.nats.restart();
  const back = await look();
  let first: Look | null = null;
  for (;;) {
    const now = await look();
    if (now.indexed > back.indexed) first ??= now;
    if (first !== null && now.written - now.indexed <= iops * CAUGHT_UP_SECONDS)
      return { before, back, first, caughtUp: now };
    if (now.atMs - back.atMs > CATCH_UP_SECONDS_MAX * 1000)
      throw new Error(
        `the index lacks ${now.written - now.indexed} writes ${CATCH_UP_SECONDS_MAX} s after the outage`,
      );
    await pause(LOOK_MS);
  }
}

function say(figures: Figures, { outageSeconds, iops }: OutageOptions, looks: Outage): void {
  const { before, back, first, caughtUp } = looks;
  const arising = rate(before, caughtUp, ({ written }) => written);
  const learning = rate(back, caughtUp, ({ indexed }) => indexed);
  const name = `after ${outageSeconds} s without NATS, writes learnt of a second to those that arise`;
  figures.say(name, learning / arising, 'x', '>= 5');
  figures.say(`  writes that arise, of ${iops} asked for`, arising, '/s');
  figures.say('  writes learnt of', learning, '/s');
  figures.say('  writes not learnt of when it was back', back.written - back.indexed, '');
  figures.say('  until the first was learnt of', (first.atMs - back.atMs) / 1000, 's');
  figures.say('  until it had caught up', (caughtUp.atMs - back.atMs) / 1000, 's');
}

function rate(from: Look, to: Look, of: (look: Look) => number): number {
  return ((of(to) - of(from)) * 1000) / (to.atMs - from.atMs);
}

/** 4 KiB random writes at a rate, until it is stopped. */
class SteadyLoad {
  readonly #fio: ChildProcess;
  readonly #ended: Promise<void>;
  #output = '';
  #stopping = false;
  #failed = false;

  constructor(uri: string, iops: number) {
    const what = [
      '--rw=randwrite',
      '--bs=4096',
      '--iodepth=32',
      `--size=${DISK_BYTES}`,
      `--rate_iops=${iops}`,
    ];
    const how = ['--norandommap', '--randrepeat=0', '--time_based', '--runtime=1d'];
    const args = ['--name=load', '--ioengine=nbd', `--uri=${uri}`, ...what, ...how];
    this.#fio = spawn('fio', args, { env: cleanEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#fio.stdout!, this.#fio.stderr!])
      stream
        .setEncoding('utf8')
        .on('data', (text: string) => (this.#output = (this.#output + text).slice(-2000)));
    this.#ended = new Promise((resolve) => {
      const end = (): void => {
        this.#failed = !this.#stopping;
        resolve();
      };
      this.#fio.once('error', end);
      this.#fio.once('close', end);
    });
  }

  /** Throws when it has ended by itself. */
  check(): void {
    if (this.#failed) throw new Error(`fio has ended before it was stopped:\n${this.#output}`);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#fio.kill('SIGINT');
    await this.#ended;
  }
}
