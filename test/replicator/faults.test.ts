// PostgreSQL at work on an ext4 on a replicator's export, while appliance, replicator and the link between them are
// killed, stopped and cut at random. The database notices pauses only; afterwards primary and appliance are equal,
// moments of gaps are refused, and any other starts PostgreSQL with all that had committed before and nothing from after.
import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { freePort, stopProcess } from '@midmirror/local-servers';
import { ApplianceProcess, run, succeed, withFolder } from '../appliance/appliance-process.ts';
import { NetworkProxy } from '../cluster/network-proxy.ts';
import { MountedDisk, type MountOptions } from './mounted-disk.ts';
import { PostgresLoad, recoverAndCheck } from './postgres-load.ts';
import { ReplicatorProcess, stateOf } from './replicator-process.ts';

const SIZE = '256M';
const SIZE_BYTES = 256 << 20;
const ROUNDS = Number(process.env['FAULT_ROUNDS'] ?? '4');
const SEED = Number(process.env['FAULT_SEED'] ?? Date.now() % 1_000_000);
const TEST_MS_MAX = 60_000 + ROUNDS * 25_000;
const MOMENTS = 3;
const MARKS = 2;
const REFUSED_MOMENTS = 3;
const FAULT_MS_MAX = 2500;
const CALM_MS_MAX = 1500;
const SAMPLE_MS = 25;
const IN_STEP_MS_MAX = 60_000;
const COMMITS_AFTER = 20;

const FAULTS = [
  ...['cut the link', 'kill the appliance', 'stop the appliance', 'freeze the appliance'],
  ...['kill the replicator', 'stop the replicator', 'freeze the replicator', 'kill both'],
  'cut the link and kill the replicator',
] as const;
type Fault = (typeof FAULTS)[number];

/** What the load had done at a time. */
interface Sample {
  ms: number;
  answered: number;
  submitted: number;
  /** The replicator in charge answered nothing that the appliance lacked, unless a gap says so. */
  sync: boolean;
}

/** A mark by way of the replicator: between two of the load's commits. */
interface Marked {
  name: string;
  answered: number;
  submitted: number;
}

interface Gap {
  fromSeq: number;
  fromTime: string;
  toSeq: number | null;
  toTime: string | null;
}

class Site {
  readonly folder: string;
  readonly random = new SeededRandom(SEED);
  readonly lines: string[] = [];
  readonly samples: Sample[] = [];
  readonly marks: Marked[] = [];
  readonly #ports: { nbd: number; api: number };
  readonly #links: readonly [NetworkProxy, NetworkProxy];
  readonly #began = performance.now();
  #sync = false;
  appliance!: ApplianceProcess;
  replicator!: ReplicatorProcess;
  readonly mounted = new Set<MountedDisk>();
  load: PostgresLoad | null = null;

  private constructor(
    folder: string,
    ports: { nbd: number; api: number },
    links: readonly [NetworkProxy, NetworkProxy],
  ) {
    this.folder = folder;
    this.#ports = ports;
    this.#links = links;
    [links[0].targetPort, links[1].targetPort] = [ports.nbd, ports.api];
  }

  static async start(folder: string): Promise<Site> {
    const ports = { nbd: await freePort(), api: await freePort() };
    const site = new Site(folder, ports, [await NetworkProxy.start(), await NetworkProxy.start()]);
    await site.startAppliance();
    await site.appliance.post('/volumes', { name: 'db', sizeBytes: SIZE_BYTES });
    await succeed('truncate', ['-s', SIZE, site.primary]);
    await site.startReplicator();
    return site;
  }

  get primary(): string {
    return `${this.folder}/primary.img`;
  }

  /** Over the link, as the replicator sees it. */
  get api(): string {
    return `http://127.0.0.1:${this.#links[1].port}`;
  }

  log(line: string): void {
    this.lines.push(`${new Date().toISOString()} ${line}`);
  }

  /** Also to whoever looks on. */
  tell(line: string): void {
    this.log(line);
    process.stdout.write(`${((performance.now() - this.#began) / 1000).toFixed(1)} s: ${line}\n`);
  }

  async mount(name: string, uri: string, options: MountOptions): Promise<MountedDisk> {
    const disk = await MountedDisk.mount(this.folder, name, uri, options);
    this.mounted.add(disk);
    return disk;
  }

  async unmount(disk: MountedDisk): Promise<void> {
    await disk.unmount();
    this.mounted.delete(disk);
  }

  async startAppliance(): Promise<void> {
    this.appliance = await ApplianceProcess.start(`${this.folder}/data`, {
      MIM_NBD_LISTEN: `127.0.0.1:${this.#ports.nbd}`,
      MIM_API_LISTEN: `127.0.0.1:${this.#ports.api}`,
    });
  }

  async startReplicator(): Promise<void> {
    const [nbd] = this.#links;
    const sync = this.random.chance(0.5);
    this.replicator = await ReplicatorProcess.start(
      {
        folder: this.folder,
        primary: this.primary,
        to: `nbd://127.0.0.1:${nbd.port}/db`,
        volume: 'db',
        api: this.api,
      },
      ...(sync ? ['--mode', 'sync', '--on-loss', 'continue'] : []),
    );
    this.#sync = sync;
  }

  /** Notes what the load does, until the function that it answers is called. */
  sampleOn(): () => void {
    const timer = setInterval(() => {
      const { answered, submitted } = this.load!;
      this.samples.push({ ms: Date.now(), answered, submitted, sync: this.#sync });
    }, SAMPLE_MS);
    return () => clearInterval(timer);
  }

  /** A moment of the host, not of what the appliance has got so far; refused while there is none. */
  async mark(): Promise<void> {
    const name = `mark-${this.marks.length}`;
    const { answered } = this.load!;
    const marked = await run(
      process.execPath,
      ['services/mim/main.ts', '--api', this.api, 'mark', 'db', name],
      {
        env: { MIM_REPLICATOR_DIR: stateOf(this) },
      },
    );
    assert.equal(marked.status, 0, marked.stderr);
    assert.match(marked.stderr, /by the replicator/);
    this.marks.push({ name, answered, submitted: this.load!.submitted });
  }

  async strike(fault: Fault): Promise<void> {
    const ms = this.random.below(FAULT_MS_MAX);
    this.tell(`${fault} for ${ms} ms, when the replicator was ${this.replicator.mode}`);
    if (fault.startsWith('cut')) for (const link of this.#links) link.cut();
    if (fault === 'kill the appliance' || fault === 'kill both') {
      this.appliance.kill();
      await this.appliance.ended;
    }
    if (fault === 'stop the appliance') await this.appliance.stop();
    if (/kill (the replicator|both)/.test(fault)) await this.replicator.kill();
    if (fault === 'stop the replicator') await this.replicator.stop();
    const frozen = fault.endsWith('the appliance') ? this.appliance : this.replicator;
    if (fault.startsWith('freeze')) await stopProcess(frozen.pid);
    await pause(ms);
    if (fault.startsWith('freeze')) process.kill(frozen.pid, 'SIGCONT');
    if (fault.startsWith('cut')) for (const link of this.#links) link.mend();
    if (/(kill|stop) the appliance|both/.test(fault)) await this.startAppliance();
    if (/(kill|stop) the replicator|both/.test(fault)) {
      this.#sync = false;
      await this.startReplicator();
    }
  }

  /** Whatever has failed: nothing is left. */
  async end(): Promise<void> {
    // First, so that nobody waits for a disk that does not answer any more.
    for (const disk of this.mounted) await disk.abandon();
    await this.load?.kill();
    await this.replicator?.kill();
    this.appliance?.kill();
    await this.appliance?.ended;
    for (const link of this.#links) await link.stop();
  }
}

test(`${ROUNDS} faults under PostgreSQL (seed ${SEED})`, { timeout: TEST_MS_MAX + 30_000 }, () =>
  withFolder(async (folder) => {
    chmodSync(folder, 0o755); // PostgreSQL runs as a user of its own
    const site = await Site.start(folder);
    const tooLate = Promise.withResolvers<never>();
    const timer = setTimeout(() => tooLate.reject(new Error(`not done in ${TEST_MS_MAX} ms`)), TEST_MS_MAX);
    const story = (async () => {
      await underFaults(site);
      await checkMoments(site);
      await restoreThePrimary(site);
    })();
    try {
      await Promise.race([story, tooLate.promise]);
    } catch (error) {
      const told = [...site.lines.slice(-60), ...site.replicator.lines.slice(-40)].join('\n');
      const appliance = site.appliance.output.slice(-4000);
      throw new Error(`with these last lines:\n${told}\nof the appliance:\n${appliance}`, { cause: error });
    } finally {
      clearTimeout(timer);
      await site.end();
      await story.catch(() => {}); // told of above; now nothing of it goes on
    }
  }),
);

async function underFaults(site: Site): Promise<void> {
  const { random } = site;
  const mount = { retrying: true, format: true };
  const disk = await site.mount('live', site.replicator.uri, mount);
  const load = await PostgresLoad.start(disk.path, (line) => site.log(line));
  site.load = load;
  const sampled = site.sampleOn();
  for (let round = 0; round < ROUNDS; round += 1) {
    // Sometimes the next one comes while it still catches up.
    if (random.chance(0.7)) {
      await site.replicator.untilMode('replicating', IN_STEP_MS_MAX);
      await load.untilAnswered(load.answered + COMMITS_AFTER);
      await site.mark();
    }
    await pause(random.below(CALM_MS_MAX));
    await site.strike(FAULTS[(round + SEED) % FAULTS.length]!);
  }
  await site.replicator.untilMode('replicating', IN_STEP_MS_MAX);
  await load.untilAnswered(load.answered + COMMITS_AFTER);
  site.tell(`${load.answered} commits`);
  sampled();
  await load.stop();
  site.load = null;
  await site.unmount(disk);
  await stopEqual(site);
}

async function stopEqual({ replicator, appliance, primary }: Site): Promise<void> {
  await replicator.untilMode('replicating', IN_STEP_MS_MAX);
  assert.equal(await replicator.stop(), 0);
  await succeed('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', primary, appliance.uri('db')]);
}

async function checkMoments(site: Site): Promise<void> {
  const { random, samples, appliance } = site;
  const { gaps } = await appliance.get<{ gaps: Gap[] }>('/volumes/db/points');
  assert.ok(gaps.every(({ toSeq }) => toSeq !== null));
  site.tell(`${gaps.length} gaps`);
  site.log(JSON.stringify(gaps));
  const isIn = (ms: number, { fromTime, toTime }: Gap): boolean =>
    Date.parse(fromTime) < ms && ms < Date.parse(toTime!);
  const known = samples.slice(1, -1);
  const lost = known.filter(({ ms }) => gaps.some((gap) => isIn(ms, gap)));
  const kept = known.filter(({ ms }) => !gaps.some((gap) => isIn(ms - 1, gap) || isIn(ms + 1, gap)));
  assert.ok(kept.length > 0, 'some moments are kept');
  for (let i = 0; i < REFUSED_MOMENTS && lost.length > 0; i += 1) {
    const at = new Date(random.pick(lost).ms).toISOString();
    const refused = await appliance.mim('resolve', 'db', '--at', at);
    assert.equal(refused.status, 3, `${at} is in a gap\n${refused.stdout}${refused.stderr}`);
  }
  for (const { fromSeq, toSeq } of gaps.slice(0, REFUSED_MOMENTS)) {
    if (toSeq! - fromSeq < 2) continue;
    const within = fromSeq + 1 + random.below(toSeq! - fromSeq - 1);
    const refused = await appliance.mim('resolve', 'db', '--at', `seq:${within}`);
    assert.equal(refused.status, 3, `write ${within} is in a gap\n${refused.stdout}${refused.stderr}`);
  }
  // The ends of gaps are moments as well, and of use: there is nothing nearer.
  const points = gaps.slice(0, 1).flatMap(({ fromSeq, toSeq }) => [`seq:${fromSeq}`, `seq:${toSeq}`]);
  for (const at of points) await checkMoment(site, at, 0, Number.POSITIVE_INFINITY);
  for (let i = 0; i < MARKS; i += 1) {
    const { name, answered, submitted } = random.pick(site.marks);
    await checkMoment(site, `mark:${name}`, answered, submitted);
  }
  for (let i = 0; i < MOMENTS; i += 1) {
    const at = samples.indexOf(random.pick(kept));
    const [before, sample, after] = [samples[at - 1]!, samples[at]!, samples[at + 1]!];
    // Without waiting for the appliance it may be behind; what it has is whole all the same.
    const atLeast = before.sync && sample.sync ? before.answered : 0;
    await checkMoment(site, new Date(sample.ms).toISOString(), atLeast, after.submitted);
  }
}

/** The day has come: the primary goes back to a moment, and its host goes on from there. */
async function restoreThePrimary(site: Site): Promise<void> {
  const { name, answered, submitted } = site.random.pick(site.marks);
  const restore = ['services/mim/main.ts', '--api', site.appliance.api, 'restore', 'db', '--yes'];
  await succeed(process.execPath, [...restore, '--at', `mark:${name}`, '--to', site.primary], {
    env: { MIM_REPLICATOR_DIR: stateOf(site) },
  });
  await site.startReplicator();
  await checkDisk(site, 'restored', site.replicator.uri, answered, submitted);
  await stopEqual(site);
}

let moments = 0;

/** Of a point: it has all commits up to one of these, and none after. */
async function checkMoment(site: Site, at: string, from: number, to: number): Promise<void> {
  const name = `moment-${moments}`;
  moments += 1;
  await site.appliance.post('/clones', { volume: 'db', at, name });
  await checkDisk(site, name, site.appliance.uri(name), from, to, at);
}

/** Starts PostgreSQL on it. */
async function checkDisk(
  site: Site,
  name: string,
  uri: string,
  from: number,
  to: number,
  what = name,
): Promise<void> {
  const disk = await site.mount(name, uri, { retrying: false, format: false });
  const held = await recoverAndCheck(disk.path, (line) => site.log(line));
  await site.unmount(disk);
  site.tell(`${what} ends with commit ${held}, expected ${from} to ${to}`);
  assert.ok(held <= to, `${what} has commit ${held}, from after; the last was ${to}`);
  assert.ok(held >= from, `${what} lacks commit ${from}, answered before; its last is ${held}`);
}
