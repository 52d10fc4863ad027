// `npm run bench:replicator [-- --seconds 4 --rounds 5 --size 1GiB --only writes --out replicator-bench.json]`: what a
// guest pays for a replicator (async, the appliance on the same machine) beside nbdkit on the bare primary, and what
// the first copying takes beside nbdcopy of the same file, in turn. Ratios are of medians. No bar is asserted here:
// figures of a noisy machine are for people to read.
import { createWriteStream } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parseBytes } from '@midmirror/basis';
import { run, succeed } from '../appliance/appliance-process.ts';
import { ReplicatorProcess } from '../replicator/replicator-process.ts';
import { installTools } from '../tools.ts';
import { Figures } from './figures.ts';
import { benchFolder, type Held, held } from './held.ts';
import { type Measured, measure, median } from './measure.ts';
import { partsOf } from './parts.ts';
import { startAppliance, startNbdkit } from './servers.ts';

const PARTS = ['writes', 'sync'] as const;
const IN_STEP_MS_MAX = 600_000;
const FILL_BYTES = 4 << 20;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '5' },
    size: { type: 'string', default: '1GiB' },
    only: { type: 'string', default: PARTS.join(',') },
    out: { type: 'string', default: 'replicator-bench.json' },
  },
});
const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)];
const sizeBytes = parseBytes(values.size, '--size');
const asked = partsOf(PARTS, values.only);

type Appliance = Awaited<ReturnType<typeof startAppliance>>;

async function main(): Promise<void> {
  installTools();
  const figures = new Figures({ nbdcopy: (await run('nbdcopy', ['--version'])).stdout.trim() });
  {
    await using place = await benchFolder();
    const folder = place.it;
    await using appliance = await held(startAppliance(folder), (each) => each.stop());
    try {
      // Every block of it is there: nobody takes a shortcut.
      await fill(`${folder}/primary.img`);
      if (asked.has('sync')) await syncFigures(figures, folder, appliance.it);
      if (asked.has('writes')) await writeFigures(figures, folder, appliance.it);
    } catch (error) {
      const said = appliance.it.appliance.output.slice(-4000);
      throw new Error(`the appliance said:\n${said}`, { cause: error });
    }
  }
  figures.write(values.out);
}

/** Copies the same file to new volumes, the one by the replicator, the next by nbdcopy. */
async function syncFigures(figures: Figures, folder: string, appliance: Appliance): Promise<void> {
  const ours: number[] = [];
  const theirs: number[] = [];
  const again: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const ways = [
      async (name: string): Promise<void> => {
        for (const [took, ...more] of [[ours], [again, '--resync', 'full']] as const) {
          await using replicator = await startReplicator(folder, appliance, name, ...more);
          took.push(await secondsOfCopying(replicator.it));
        }
      },
      async (name: string): Promise<void> => {
        const began = performance.now();
        await succeed('nbdcopy', ['--flush', `${folder}/primary.img`, appliance.uri(name)]);
        theirs.push((performance.now() - began) / 1000);
      },
    ];
    for (const [i, way] of (round % 2 === 0 ? ways : ways.toReversed()).entries()) {
      const name = `sync-${round}-${i}`;
      await appliance.appliance.post('/volumes', { name, sizeBytes });
      await way(name);
      await succeed('qemu-img', [
        ...['compare', '-f', 'raw', '-F', 'raw', `${folder}/primary.img`, appliance.uri(name)],
      ]);
      await appliance.appliance.delete(`/volumes/${name}`);
    }
  }
  const rate = (times: readonly number[]): number => sizeBytes / 1e6 / median(times);
  figures.say(
    'initial sync, to nbdcopy of the same file',
    rate(ours) / rate(theirs),
    'x',
    '>= 0.5, goal 0.9',
  );
  figures.say('  by the replicator, to an empty volume', rate(ours), 'MB/s');
  figures.say('  nbdcopy, with a flush at its end', rate(theirs), 'MB/s');
  figures.say('  compared anew where all is equal (--resync full)', rate(again), 'MB/s');
}

/** From the first comparison to the closed gap. */
async function secondsOfCopying(replicator: ReplicatorProcess): Promise<number> {
  await replicator.untilMode('replicating', IN_STEP_MS_MAX);
  const at = (mode: string): number => replicator.modes.find((each) => each.mode === mode)!.ms;
  return (at('replicating') - at('catching-up')) / 1000;
}

async function writeFigures(figures: Figures, folder: string, appliance: Appliance): Promise<void> {
  await appliance.appliance.post('/volumes', { name: 'db', sizeBytes });
  await using replicating = await startReplicator(folder, appliance, 'db');
  const replicator = replicating.it;
  await using peer = await held(startNbdkit(folder, sizeBytes), (each) => each.stop());
  const nbdkit = peer.it;
  await fill(`${folder}/nbdkit.img`);
  const ours: Measured[] = [];
  const theirs: Measured[] = [];
  const behind: number[] = [];
  const ended = new Map<string, number>();
  const catchUps: number[] = [];
  const load = { rw: 'randwrite', blockBytes: 4096, depth: 32, fsync: 0, sizeBytes, seconds } as const;
  const ways = [
    async (): Promise<void> => {
      await inStep(replicator, appliance);
      ours.push(await measure(replicator.uri, replicator.pid, load));
      const endedAt = performance.now();
      const { mode, bytesBehind } = await replicator.status();
      behind.push(bytesBehind);
      ended.set(mode, (ended.get(mode) ?? 0) + 1);
      await replicator.untilMode('replicating', IN_STEP_MS_MAX);
      catchUps.push((performance.now() - endedAt) / 1000);
    },
    async (): Promise<void> => {
      await inStep(replicator, appliance);
      theirs.push(await measure(nbdkit.uri(''), nbdkit.pid, load));
    },
  ];
  // The first is not counted: its segments are new, the map of intent has nothing in it.
  for (let round = 0; round <= rounds; round += 1)
    for (const way of round % 2 === 0 ? ways : ways.toReversed()) await way();
  for (const counted of [ours, theirs, behind, catchUps]) counted.shift();
  const of = (runs: readonly Measured[], pick: (each: Measured) => number): number => median(runs.map(pick));
  const write = '4 KiB random write, depth 32';
  const iops = (each: Measured): number => each.iops;
  const p99 = (each: Measured): number => each.p99Us;
  figures.say(`${write}, replicator to nbdkit`, of(ours, iops) / of(theirs, iops), 'x', '>= 0.6, goal 0.9');
  figures.say('  p99 of their latencies', of(ours, p99) / of(theirs, p99), 'x', '<= 2');
  for (const [name, runs] of [
    ['replicator', ours],
    ['nbdkit', theirs],
  ] as const) {
    figures.say(`  ${name}`, of(runs, iops), 'IOPS');
    figures.say(`  ${name}, p99`, of(runs, p99), 'µs');
    figures.say(
      `  ${name}, CPU`,
      of(runs, (each) => each.cpu),
      's/s',
    );
  }
  for (const [mode, count] of ended) figures.say(`  rounds that ended in the mode ${mode}`, count, '');
  figures.say('  behind at the end of a round', median(behind) / 1e6, 'MB');
  figures.say('  until in step again', median(catchUps), 's');
}

/** Nothing of a round before is still on its way, on either side. */
async function inStep(replicator: ReplicatorProcess, { appliance }: Appliance): Promise<void> {
  await replicator.untilMode('replicating', IN_STEP_MS_MAX);
  await appliance.post('/volumes/db/syncs', {});
  await succeed('sync', []);
}

function startReplicator(
  folder: string,
  { appliance, uri }: Appliance,
  volume: string,
  ...more: string[]
): Promise<Held<ReplicatorProcess>> {
  const place = { folder, primary: `${folder}/primary.img`, to: uri(volume), api: appliance.api, volume };
  return held(ReplicatorProcess.start(place, ...more), (each) => each.stop());
}

async function fill(path: string): Promise<void> {
  const bytes = randomBytes(FILL_BYTES);
  const file = createWriteStream(path);
  for (let at = 0; at < sizeBytes; at += FILL_BYTES) {
    // No two blocks are the same.
    bytes.writeDoubleLE(at, 0);
    if (!file.write(bytes.subarray(0, Math.min(FILL_BYTES, sizeBytes - at)))) await once(file, 'drain');
    await pause(0);
  }
  file.end();
  await once(file, 'close');
}

await main();
