// `npm run bench:sync [-- --snapshots 10000 --rounds 40]`: what a sync costs on a volume with so many closed snapshots
// to one with none, both in one appliance, alternating. The history is made by the API: a write and a sync that closes
// its snapshot, again and again, in memory where a flush costs nothing; then the data directory is moved to the disk
// and served by a new process. Ratios of medians; no bar is asserted here.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { ApplianceProcess, ROOT, succeed } from '../appliance/appliance-process.ts';
import { benchFolder, held } from './held.ts';
import { median } from './measure.ts';

const VOLUME_BYTES = 2 ** 30;
const BLOCK = 64 << 10;
const ROUND_WRITES = 64; // 4 MiB
/** Rounds that aren't counted: fresh segments, cold caches. */
const WARM_ROUNDS = 3;
/** Before and after a sync, so that one's background work isn't counted as the next one's. */
const SETTLE_MS = 100;
const VOLUMES = ['long', 'none'] as const;
/** In memory where that can be. */
const HISTORY_PREFIX = existsSync('/dev/shm') ? '/dev/shm/mim-bench-' : `${ROOT}/.bench-`;
const ENVIRONMENT = { MIM_SEGMENT_BYTES: '36MiB', MIM_JOURNAL_BYTES: '576MiB' };
/** Everything stays, and nothing but the API syncs. */
const POLICY = { keepLast: 100_000, syncEverySeconds: 86_400, snapshotEverySeconds: 864_000 };

const { values } = parseArgs({
  options: {
    snapshots: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '40' },
    /** A folder where the history stays for another run. */
    history: { type: 'string' },
  },
});
const snapshots = Number(values.snapshots);
const rounds = Number(values.rounds);

type Volume = (typeof VOLUMES)[number];

function say(name: string, value: string, bar = ''): void {
  process.stdout.write(`${name.padEnd(66)} ${value.padStart(14)}  ${bar}\n`);
}

async function makeHistory(folder: string): Promise<void> {
  await using started = await held(ApplianceProcess.start(folder, ENVIRONMENT), (each) => each.stop());
  const appliance = started.it;
  for (const name of VOLUMES)
    await appliance.post('/volumes', { name, sizeBytes: VOLUME_BYTES, policy: POLICY });
  const close = (name: Volume): Promise<unknown> =>
    appliance.post(`/volumes/${name}/syncs`, { closeSnapshot: true });
  const began = performance.now();
  // The last of them stays open.
  await fill(appliance, 'long', () => close('long'));
  const seconds = (performance.now() - began) / 1000;
  say(`making ${snapshots} closed snapshots`, `${seconds.toFixed(0)} s`);
  await fill(appliance, 'none', async () => {});
  await close('none');
  await appliance.delete('/volumes/none/snapshots/1');
}

/** The same writes on both: what a sync saves is data, not a hole, in the same places. */
async function fill(
  appliance: ApplianceProcess,
  name: Volume,
  afterEach: () => Promise<unknown>,
): Promise<void> {
  const random = new SeededRandom(1);
  const client = await connectNbd(appliance.uri(name));
  for (let made = 0; made <= snapshots; made += 1) {
    const start = random.below(VOLUME_BYTES / 4096) * 4096;
    await client.write(start, Buffer.alloc(4096, 1 + (made % 250)));
    await afterEach();
  }
  await client.close();
}

interface Cost {
  /** Until the API answers. */
  ms: number;
  /** Of all threads of the appliance, with what follows in the background. */
  cpuMs: number;
}

/** One sync of 4 MiB. */
async function timed(
  appliance: ApplianceProcess,
  volume: Volume,
  client: NbdClient,
  random: SeededRandom,
  closeSnapshot: boolean,
): Promise<Cost> {
  const writes = [];
  for (let i = 0; i < ROUND_WRITES; i += 1) {
    const start = random.below(VOLUME_BYTES / BLOCK) * BLOCK;
    writes.push(client.write(start, Buffer.alloc(BLOCK, 1 + random.below(255))));
  }
  await Promise.all(writes);
  await client.flush();
  await pause(SETTLE_MS);
  const cpuBefore = cpuMs(appliance.pid);
  const began = performance.now();
  await appliance.post(`/volumes/${volume}/syncs`, { closeSnapshot });
  const ms = performance.now() - began;
  await pause(SETTLE_MS);
  return { ms, cpuMs: cpuMs(appliance.pid) - cpuBefore };
}

/** By the scheduler's own count, which other processes don't disturb. */
function cpuMs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const ran = (thread: string): number =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  return threads.reduce((sum, thread) => sum + ran(thread), 0) / 1e6;
}

async function compare(
  appliance: ApplianceProcess,
  clients: Record<Volume, NbdClient>,
  name: string,
  closeSnapshot: boolean,
): Promise<void> {
  const took: Record<Volume, Cost[]> = { long: [], none: [] };
  const random: Record<Volume, SeededRandom> = { long: new SeededRandom(7), none: new SeededRandom(7) };
  for (let round = 0; round < WARM_ROUNDS + rounds; round += 1) {
    // Each goes first in turn.
    for (const volume of round % 2 === 0 ? VOLUMES : VOLUMES.toReversed()) {
      const cost = await timed(appliance, volume, clients[volume], random[volume], closeSnapshot);
      if (round >= WARM_ROUNDS) took[volume].push(cost);
    }
  }
  const ratio = (what: string, bar: string, of: (cost: Cost) => number): void => {
    const [long, none] = [median(took.long.map(of)), median(took.none.map(of))];
    const figures = `${long.toFixed(1)} ms to ${none.toFixed(1)}`;
    say(`  ${what}: ${figures}`, (long / none).toFixed(2), bar);
  };
  process.stdout.write(`${name}, with ${snapshots} closed snapshots, to none\n`);
  ratio('until it answers', '≤ 1.1', ({ ms }) => ms);
  ratio('CPU of the appliance', '', ({ cpuMs }) => cpuMs);
}

async function measureOn(folder: string): Promise<void> {
  await using started = await held(ApplianceProcess.start(folder, ENVIRONMENT), (each) => each.stop());
  const appliance = started.it;
  const view = await appliance.get<{ snapshots: number }>('/volumes/long');
  assert.ok(view.snapshots > snapshots, `the history has ${view.snapshots} snapshots`);
  const clients = {
    long: await connectNbd(appliance.uri('long')),
    none: await connectNbd(appliance.uri('none')),
  };
  await compare(appliance, clients, 'a sync of 4 MiB', false);
  await compare(appliance, clients, 'the same, closing a snapshot', true);
  for (const client of Object.values(clients)) await client.close();
}

process.stdout.write(
  `${cpus()[0]!.model}, ${cpus().length} cores, Linux ${release()}, Node ${process.version}\n`,
);
await using making = values.history === undefined ? await benchFolder(HISTORY_PREFIX) : null;
const made = values.history ?? making!.it;
await using folder = await benchFolder();
if (!existsSync(`${made}/data`)) await makeHistory(`${made}/data`);
await succeed('cp', ['-r', '--sparse=always', `${made}/data`, folder.it]);
await measureOn(`${folder.it}/data`);
