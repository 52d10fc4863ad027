// `npm run bench:monitor [-- --size 1GiB --writes 1000000 --probes 12 --rounds 5 --seconds 5 --only probes,opening,bisect,walk --out
// monitor-bench.json]`: fsck of an ext4, so many moments a minute, one at a time and several; what it takes to open and to
// mount a mirror; the search for a bad write among many; and what a guest's writes are left with during a walk. Medians; no
// bar is asserted here.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parseBytes, printBytes, SeededRandom } from '@midmirror/basis';
import { openMirror } from '@midmirror/mirror-files';
import { connectNbd } from '@midmirror/nbd';
import { type ApplianceProcess, succeed } from '../appliance/appliance-process.ts';
import { BLOCK_BYTES, ext4Image, inodePlace, type ShownJob } from '../monitor/checked-volume.ts';
import { imageWrites, play } from '../monitor/recorded-disk.ts';
import { installTools } from '../tools.ts';
import { Figures } from './figures.ts';
import { benchFolder, held } from './held.ts';
import { inTurn, secondsOf } from './in-turn.ts';
import { type Measured, measure, median } from './measure.ts';
import { partsOf } from './parts.ts';
import { startAppliance } from './servers.ts';

const PARTS = ['probes', 'opening', 'bisect', 'walk'] as const;
const AT_ONCE = [1, 2, 4];
const FILES = 2000;
const FILE_BYTES = 16 << 10;
/** Half of it is the large file; the small ones and what an ext4 keeps for itself take 84 MiB at the least. */
const SIZE_BYTES_MIN = 96 << 20;
/** An inode that is in use, among others that nobody touches. */
const INODE = 500;
const WRITES_AT_ONCE = 512;
const POLL_MS = 5;
/** As the command line does. */
const WALK_POLL_MS = 250;

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '1GiB' },
    writes: { type: 'string', default: '1000000' },
    probes: { type: 'string', default: '12' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
    only: { type: 'string', default: PARTS.join(',') },
    out: { type: 'string', default: 'monitor-bench.json' },
  },
});
const sizeBytes = parseBytes(values.size, '--size');
if (sizeBytes < SIZE_BYTES_MIN)
  throw new Error(
    `--size: ${values.size} does not hold the files of the bench; the least is ${printBytes(SIZE_BYTES_MIN)}`,
  );
const [writes, probes, rounds, seconds] = [
  Number(values.writes),
  Number(values.probes),
  Number(values.rounds),
  Number(values.seconds),
];
const asked = partsOf(PARTS, values.only);

interface Extent {
  start: number;
  length: number;
}

class Bench {
  readonly #server: Awaited<ReturnType<typeof startAppliance>>;
  readonly #folder: string;
  readonly #figures: Figures;
  readonly #image: string;
  #checks = 0;

  constructor(
    server: Awaited<ReturnType<typeof startAppliance>>,
    folder: string,
    figures: Figures,
    image: string,
  ) {
    this.#server = server;
    this.#folder = folder;
    this.#figures = figures;
    this.#image = image;
  }

  get #appliance(): ApplianceProcess {
    return this.#server.appliance;
  }

  /** Each of a moment of its own, by a check that knows nothing yet. */
  async probes(): Promise<void> {
    const latest = await this.#fill('probes', probes);
    process.stdout.write(`\nfsck of an ext4 of ${printBytes(sizeBytes)}, ${probes} moments\n`);
    const took = await inTurn(
      AT_ONCE.map((atOnce) => async () => {
        const check = await this.#check('probes', 'fsck', {});
        const wanted = Array.from({ length: probes }, (_, i) => latest - i);
        const next = async (): Promise<void> => {
          for (let seq = wanted.pop(); seq !== undefined; seq = wanted.pop())
            await this.#certified('probes', check, `seq:${seq}`);
        };
        return await secondsOf(() => Promise.all(Array.from({ length: atOnce }, next)));
      }),
      rounds,
    );
    for (const [i, atOnce] of AT_ONCE.entries())
      this.#figures.say(`probes a minute, ${atOnce} at one time`, (probes * 60) / took[i]!, '');
    for (const [i, atOnce] of AT_ONCE.entries())
      if (atOnce > 1)
        this.#figures.say(`  ${atOnce} at one time, to one after another`, took[0]! / took[i]!, 'x');
    await this.#appliance.delete('/volumes/probes');
  }

  /** From nothing to a file of it that was read, and back. */
  async opening(): Promise<void> {
    const latest = await this.#fill('opening', 1);
    process.stdout.write(`\nways to a moment of ${printBytes(sizeBytes)}\n`);
    const uri = this.#server.uri(`opening@seq:${latest}`);
    const stateDirectory = `${this.#folder}/mounts`;
    const nothing = this.#program('nothing', 'exit 0');
    const checks = [
      await this.#check('opening', 'command', { program: nothing }),
      await this.#check('opening', 'command', { program: nothing, as: 'files' }),
      await this.#check('opening', 'command', { program: nothing, as: 'files', writable: true }),
    ];
    const [open, mounted, ...probed] = (await inTurn(
      [
        () =>
          secondsOf(async () => {
            const client = await connectNbd(uri);
            await client.read(0, BLOCK_BYTES);
            await client.close();
          }),
        () =>
          secondsOf(async () => {
            await using mirror = await held(openMirror(uri, { stateDirectory }), (each) => each.close());
            await (await mirror.it.tree()).stat('/f1');
          }),
        ...checks.map((check) => () => secondsOf(() => this.#certified('opening', check, `seq:${latest}`))),
      ],
      rounds,
    )) as [number, number, ...number[]];
    const figures = this.#figures;
    figures.say('a mirror is opened, read and closed', open * 1000, 'ms');
    figures.say('a mirror is opened, mounted, looked at, unmounted and closed', mounted * 1000, 'ms');
    for (const [i, what] of ['the disk', 'its files', 'a clone of its files'].entries())
      figures.say(`a probe by a program that does nothing, with ${what}`, probed[i]! * 1000, 'ms');
    await this.#appliance.delete('/volumes/opening');
  }

  /** Random writes to a large file of the disk, and among them one to an inode. */
  async bisect(): Promise<void> {
    process.stdout.write(`\nsearch among ${writes} writes by fsck of ${printBytes(sizeBytes)}\n`);
    // To what fsck reads, so that no moment is as good as another; and to one of the files, as most writes are.
    await this.#search(true, AT_ONCE);
    await this.#search(false, [1]);
  }

  /** `seen`: each second write is to something that fsck reads. */
  async #search(seen: boolean, atOnce: readonly number[]): Promise<void> {
    const badBefore = new SeededRandom(7).below(writes);
    const first = await this.#fill('bisect', 0);
    await this.#writeFile('bisect', badBefore, seen);
    const { blockStart, offsetInBlock } = await inodePlace(this.#image, INODE);
    const client = await connectNbd(this.#server.uri('bisect'));
    const inodes = await client.read(blockStart, BLOCK_BYTES);
    await client.write(blockStart, inodes.fill(0xa5, offsetInBlock, offsetInBlock + 128));
    await client.close();
    await this.#writeFile('bisect', writes - badBefore - 1, seen);
    const made: number[] = [];
    const took = await inTurn(
      atOnce.map((jobs) => async () => {
        const check = await this.#check('bisect', 'fsck', {});
        return await secondsOf(async () => {
          const begun = await this.#appliance.post<{ job: ShownJob }>('/volumes/bisect/bisections', {
            ...{ check, good: `seq:${first}`, jobs },
          });
          const { end, probes: count } = await this.#ended(begun.job);
          assert.equal(end?.firstBad?.seq, first + badBefore + 1);
          if (jobs === 1) made.push(count);
        });
      }),
      1,
    );
    const figures = this.#figures;
    const bar = writes >= 1e6 ? '<= 60, goal 20' : '';
    figures.say(
      seen ? 'bisect, all moments differ to fsck' : 'bisect, most moments are alike to fsck',
      took[0]!,
      's',
      bar,
    );
    figures.say('  probes', median(made), '', `<= ${Math.ceil(Math.log2(writes)) + 2}`);
    for (const [i, jobs] of atOnce.entries()) {
      if (jobs === 1) continue;
      figures.say(`  --jobs ${jobs}`, took[i]!, 's');
      figures.say('    one after another, to that', took[0]! / took[i]!, 'x');
    }
    await this.#appliance.delete('/volumes/bisect');
  }

  /** Of a volume while moments of it are checked by fsck, one after another. */
  async walk(): Promise<void> {
    await this.#fill('walk', probes, { marked: true });
    await this.#appliance.post('/volumes', { name: 'written', sizeBytes });
    const load = { rw: 'randwrite', blockBytes: 4096, depth: 32, fsync: 0, sizeBytes, seconds } as const;
    const alone: Measured[] = [];
    const beside: Measured[] = [];
    let made = 0;
    for (let round = 0; round <= rounds; round += 1) {
      await succeed('sync', []);
      const quiet = await measure(this.#server.uri('written'), this.#server.pid, load);
      let ending = false;
      const walking = (async () => {
        // Each time by another check: none has been told to that one.
        while (!ending) made += await this.#walked(await this.#check('walk', 'fsck', {}), () => ending);
      })();
      const busy = await measure(this.#server.uri('written'), this.#server.pid, load);
      ending = true;
      await walking;
      if (round === 0) continue; // segments are new
      alone.push(quiet);
      beside.push(busy);
    }
    const of = (runs: readonly Measured[], pick: (each: Measured) => number): number =>
      median(runs.map(pick));
    const iops = ({ iops: each }: Measured): number => each;
    const p99 = ({ p99Us }: Measured): number => p99Us;
    process.stdout.write('\n4 KiB random writes of a guest, depth 32\n');
    const figures = this.#figures;
    figures.say('during a walk, to without', of(beside, iops) / of(alone, iops), 'x', '>= 0.7');
    figures.say('  p99 of their latencies', of(beside, p99) / of(alone, p99), 'x');
    figures.say('  writes a second without', of(alone, iops), '');
    figures.say('  writes a second during a walk', of(beside, iops), '');
    figures.say('  probes a minute meanwhile', (made * 60) / ((rounds + 1) * seconds), '');
    for (const name of ['walk', 'written']) await this.#appliance.delete(`/volumes/${name}`);
  }

  /** One walk over all its points, or until it is not wanted any more. How many probes it made. */
  async #walked(check: string, isEnough: () => boolean): Promise<number> {
    const { job } = await this.#appliance.post<{ job: ShownJob }>('/volumes/walk/certifications', { check });
    for (;;) {
      const { job: now } = await this.#appliance.get<{ job: ShownJob }>(`/check-jobs/${job.job}`);
      if (now.status === 'done') return now.probes;
      assert.ok(now.status === 'queued' || now.status === 'running', `${now.status}: ${now.error?.message}`);
      if (isEnough()) {
        await this.#appliance.delete(`/check-jobs/${job.job}`);
        return now.probes;
      }
      await pause(WALK_POLL_MS);
    }
  }

  /** A volume with the file system, on the MIM, and `more` writes to a file of it. The number of the last one. */
  async #fill(name: string, more: number, { marked = false } = {}): Promise<number> {
    await this.#appliance.post('/volumes', { name, sizeBytes });
    await play(this.#server.uri(name), imageWrites(this.#image));
    await this.#appliance.post(`/volumes/${name}/syncs`, { closeSnapshot: true });
    // To what a check reads: else one moment would be as good as the other.
    const client = await connectNbd(this.#server.uri(name));
    const boot = Buffer.alloc(512);
    for (let i = 1; i <= more; i += 1) {
      boot.writeUInt32LE(i);
      await client.write(0, boot);
      if (marked)
        await this.#appliance.post(`/volumes/${name}/marks`, { name: `moment-${i}`, kind: 'bookmark' });
    }
    await client.close();
    return (await this.#appliance.get<{ seq: number }>(`/volumes/${name}/resolve?at=latest`)).seq;
  }

  async #writeFile(name: string, count: number, seen: boolean): Promise<void> {
    const extents = await this.#extents();
    const random = new SeededRandom(count + 1);
    const client = await connectNbd(this.#server.uri(name));
    const data = Buffer.alloc(BLOCK_BYTES, 0x5a);
    for (let done = 0; done < count; ) {
      const some: Promise<void>[] = [];
      for (; some.length < WRITES_AT_ONCE && done < count; done += 1) {
        if (seen && done % 2 === 1) {
          const boot = Buffer.alloc(512);
          boot.writeUInt32LE(done);
          some.push(client.write(0, boot));
          continue;
        }
        const { start, length } = random.pick(extents);
        some.push(client.write(start + random.below(length / BLOCK_BYTES) * BLOCK_BYTES, data));
      }
      await Promise.all(some);
    }
    await client.flush();
    await client.close();
  }

  /** Where the large file lies. */
  async #extents(): Promise<Extent[]> {
    const said = await succeed('debugfs', ['-R', 'stat /large', this.#image]);
    const listed = said.slice(said.indexOf('EXTENTS:'));
    return [...listed.matchAll(/\(\d+-\d+\)(?:\[u\])?:(\d+)-(\d+)/g)].map(([, from, to]) => ({
      start: Number(from) * BLOCK_BYTES,
      length: (Number(to) - Number(from) + 1) * BLOCK_BYTES,
    }));
  }

  async #check(volume: string, kind: string, settings: object): Promise<string> {
    this.#checks += 1;
    const name = `check-${this.#checks}`;
    await this.#appliance.post(`/volumes/${volume}/checks`, { name, kind, settings });
    return name;
  }

  async #certified(volume: string, check: string, at: string): Promise<void> {
    const { job } = await this.#appliance.post<{ job: ShownJob }>(`/volumes/${volume}/certifications`, {
      ...{ check, at },
    });
    const { end } = await this.#ended(job);
    assert.equal(end?.kind, 'certified', JSON.stringify(end));
  }

  async #ended({ job }: ShownJob): Promise<ShownJob> {
    for (;;) {
      const { job: now } = await this.#appliance.get<{ job: ShownJob }>(`/check-jobs/${job}`);
      if (now.status === 'done') return now;
      assert.ok(now.status === 'queued' || now.status === 'running', `${now.status}: ${now.error?.message}`);
      await pause(POLL_MS);
    }
  }

  #program(name: string, body: string): string {
    const path = `${this.#folder}/${name}.sh`;
    writeFileSync(path, `#!/bin/sh\n${body}\n`);
    chmodSync(path, 0o755);
    return path;
  }
}

/** Many small files, and a large one of half the disk. */
async function makeImage(folder: string): Promise<string> {
  return await ext4Image(folder, sizeBytes, async (source) => {
    mkdirSync(`${source}/small`);
    for (let i = 0; i < FILES; i += 1) writeFileSync(`${source}/small/f${i}`, Buffer.alloc(FILE_BYTES, i));
    writeFileSync(`${source}/f1`, 'one file');
    const blocks = Math.floor(sizeBytes / 2 / BLOCK_BYTES);
    await succeed('dd', [
      ...['if=/dev/urandom', `of=${source}/large`, `bs=${BLOCK_BYTES}`, `count=${blocks}`, 'status=none'],
    ]);
  });
}

installTools();
const figures = new Figures({
  nbdfuse: (await succeed('nbdfuse', ['--version'])).split('\n')[0]!,
});
{
  await using folder = await benchFolder();
  const image = await makeImage(folder.it);
  await using server = await held(startAppliance(folder.it), (each) => each.stop());
  const bench = new Bench(server.it, folder.it, figures, image);
  if (asked.has('probes')) await bench.probes();
  if (asked.has('opening')) await bench.opening();
  if (asked.has('bisect')) await bench.bisect();
  if (asked.has('walk')) await bench.walk();
}
figures.write(values.out);
