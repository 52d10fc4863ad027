// 4 KiB random writes through a cluster, at the owner and at an ingest that passes the disk on, beside the single
// process, in turn; and how late the index learnt of those at the owner. Both tell metrics, both have the same ring.
import { type ApiUser, ApplianceProcess } from '../appliance/appliance-process.ts';
import { BenchCluster, type LagSince } from './bench-cluster.ts';
import { type Buckets, quantile, shareWithin, since } from './buckets.ts';
import type { Figures } from './figures.ts';
import { benchFolder, held } from './held.ts';
import { type Load, type Measured, measure, median } from './measure.ts';

const DISK_BYTES = 2 ** 30;
const VOLUME = 'bench';
const ENVIRONMENT = { MIM_JOURNAL_BYTES: '4GiB' };
/** Below the share at which a volume begins to sync for space. */
const RING_USED_SHARE_MAX = 0.6;
/** More than a round writes: its segments have been used before. */
const BYTES_PER_SECOND_MAX = 400e6;
const LAG_SECONDS_BAR = 0.1;

export interface WritesOptions {
  rounds: number;
  seconds: number;
  /** No more than the lag is asked for: only the owner is measured. */
  lagOnly: boolean;
}

interface View {
  journal: { bytesUsed: number; bytesMax: number };
}

type Way = 'owner' | 'relay' | 'single';

export async function writeFigures(figures: Figures, options: WritesOptions): Promise<void> {
  await BenchCluster.with(ENVIRONMENT, { ingests: 2, onSockets: true }, async (cluster) => {
    const owner = 'ingest-1';
    await cluster.createAt(owner, VOLUME, DISK_BYTES);
    const ownerUri = cluster.at(owner, VOLUME);
    const pid = cluster.local.service(owner).pid!;
    await steady(cluster, ownerUri, pid, options.seconds);
    const lags: Lags = { stored: [], durable: [] };
    const rested = async (uri: string): Promise<Measured> => {
      await cluster.post(`/volumes/${VOLUME}/syncs`, {});
      await cluster.indexed(owner, VOLUME);
      return await measure(uri, pid, load(options.seconds));
    };
    const ways: Partial<Record<Way, () => Promise<Measured>>> = {
      owner: () => withLag(cluster, owner, lags, () => rested(ownerUri)),
    };
    if (options.lagOnly) await inTurn(figures, ways, options.rounds);
    else
      await withSingle(options.seconds, async (single) => {
        await inTurn(
          figures,
          { ...ways, single, relay: () => rested(cluster.at('ingest-2', VOLUME)) },
          options.rounds,
        );
      });
    sayLag(figures, lags);
  });
}

type Lags = Record<LagSince, Buckets[]>;

/** Of the writes of one run; the end of it comes when the index has all. */
async function withLag(
  cluster: BenchCluster,
  owner: string,
  lags: Lags,
  act: () => Promise<Measured>,
): Promise<Measured> {
  await cluster.indexed(owner, VOLUME);
  const [stored, durable] = [await cluster.lag('stored'), await cluster.lag('durable')];
  const measured = await act();
  await cluster.indexed(owner, VOLUME);
  lags.stored.push(since(stored, await cluster.lag('stored')));
  lags.durable.push(since(durable, await cluster.lag('durable')));
  return measured;
}

function sayLag(figures: Figures, lags: Lags): void {
  for (const [from, what, bar] of [
    ['durable', 'from durable to indexed', '< 100'],
    ['stored', 'from just before its answer to indexed', ''],
  ] as const) {
    const runs = lags[from];
    const of = (share: number): number => median(runs.map((run) => quantile(run, share))) * 1000;
    figures.say(`event lag at that load, of each write, ${what}: p99`, of(0.99), 'ms', bar);
    figures.say('  p50', of(0.5), 'ms');
    const within = Math.min(...runs.map((run) => shareWithin(run, LAG_SECONDS_BAR)));
    figures.say('  within 100 ms, in the worst round', within * 100, '%');
    figures.say(
      '  writes that were looked at',
      runs.reduce((sum, { count }) => sum + count, 0),
      '',
    );
  }
}

/** The single process as `npm start` runs it, brought to its steady state. */
async function withSingle(
  seconds: number,
  act: (measureIt: () => Promise<Measured>) => Promise<void>,
): Promise<void> {
  await using folder = await benchFolder();
  const socket = `${folder.it}/mim.sock`;
  const starting = ApplianceProcess.start(`${folder.it}/data`, {
    ...{ ...ENVIRONMENT, MIM_NBD_LISTEN: `unix:${socket}`, MIM_METRICS_LISTEN: '127.0.0.1:0' },
  });
  await using appliance = await held(starting, (each) => each.stop());
  const single = appliance.it;
  await single.post('/volumes', { name: VOLUME, sizeBytes: DISK_BYTES });
  const uri = `nbd+unix:///${VOLUME}?socket=${socket}`;
  await steady(single, uri, single.pid, seconds);
  await act(async () => {
    await single.post(`/volumes/${VOLUME}/syncs`, {});
    return await measure(uri, single.pid, load(seconds));
  });
}

/** Alternates, each way going first in turn, so that a slow minute of the machine hits all. */
async function inTurn(
  figures: Figures,
  ways: Partial<Record<Way, () => Promise<Measured>>>,
  rounds: number,
): Promise<void> {
  const runs = Object.entries(ways).map(([way, run]) => ({
    way: way as Way,
    run,
    measured: [] as Measured[],
  }));
  for (let round = 0; round < rounds; round += 1)
    for (const { run, measured } of round % 2 === 0 ? runs : runs.toReversed()) measured.push(await run());
  const iops = new Map<Way, number>();
  for (const { way, measured } of runs) iops.set(way, median(measured.map((each) => each.iops)));
  const write = '4 KiB random write, depth 32';
  const single = iops.get('single');
  if (single !== undefined) {
    figures.say(`${write}, at the owner, to the single process`, iops.get('owner')! / single, 'x', '>= 0.9');
    figures.say('  passed on by another ingest, to the single process', iops.get('relay')! / single, 'x');
  }
  const names = { owner: 'at the owner', relay: 'passed on', single: 'single process' };
  for (const { way, measured } of runs) {
    const of = (pick: (each: Measured) => number): number => median(measured.map(pick));
    figures.say(`${write}, ${names[way]}`, iops.get(way)!, 'IOPS');
    figures.say(
      '  p50',
      of((each) => each.p50Us),
      'µs',
    );
    figures.say(
      '  p99',
      of((each) => each.p99Us),
      'µs',
    );
    figures.say(
      `  CPU of ${way === 'single' ? 'all of it' : 'the owner alone'}`,
      of((each) => each.cpu),
      's/s',
    );
  }
}

function load(seconds: number): Load {
  return { rw: 'randwrite', blockBytes: 4096, depth: 32, fsync: 0, sizeBytes: DISK_BYTES, seconds };
}

/** The segments that a round will need have been used, and are used again; every block is in the MIM. */
async function steady(user: ApiUser, uri: string, pid: number, seconds: number): Promise<void> {
  const fill = { ...load(Math.ceil(seconds)), rw: 'write' as const, blockBytes: 1 << 20, depth: 4 };
  const { journal } = await user.get<View>(`/volumes/${VOLUME}`);
  const wanted = Math.min(RING_USED_SHARE_MAX * journal.bytesMax, seconds * BYTES_PER_SECOND_MAX);
  for (let used = 0; used < wanted; ) {
    await measure(uri, pid, fill);
    used = (await user.get<View>(`/volumes/${VOLUME}`)).journal.bytesUsed;
  }
  await user.post(`/volumes/${VOLUME}/syncs`, {});
}
