// `npm run bench:tape [-- --size 2GiB --change-size 10GiB --rounds 5 --seconds 5 --only image,change,writes --out tape-bench.json]`:
// an image tape of a mirror to a directory beside `qemu-img convert` of the same mirror to qcow2 in the same run, in turn;
// a difference tape of 1 % beside an image of all; and what a guest's writes are left with while tapes are written.
// Ratios of medians; no bar is asserted here.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parseBytes, printBytes, SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { type ApplianceProcess, succeed } from '../appliance/appliance-process.ts';
import { installTools } from '../tools.ts';
import { Figures } from './figures.ts';
import { fillVolume } from './fill-volume.ts';
import { benchFolder, held } from './held.ts';
import { inTurn, settledSecondsOf } from './in-turn.ts';
import { type Measured, measure, median } from './measure.ts';
import { partsOf } from './parts.ts';
import { startAppliance } from './servers.ts';

const PIECE = 64 << 10;
const PARTS = ['image', 'change', 'writes'] as const;
const JOB_EVERY_MS = 10;

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '2GiB' },
    'change-size': { type: 'string', default: '10GiB' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
    only: { type: 'string', default: PARTS.join(',') },
    out: { type: 'string', default: 'tape-bench.json' },
  },
});
const sizeBytes = parseBytes(values.size, '--size');
const changeBytes = parseBytes(values['change-size'], '--change-size');
const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
const asked = partsOf(PARTS, values.only);

interface Job {
  job: string;
  archive: string;
  state: string;
  error: { message: string } | null;
}

class Bench {
  readonly #server: Awaited<ReturnType<typeof startAppliance>>;
  readonly #folder: string;
  readonly #figures: Figures;

  constructor(server: Awaited<ReturnType<typeof startAppliance>>, folder: string, figures: Figures) {
    this.#server = server;
    this.#folder = folder;
    this.#figures = figures;
  }

  get #appliance(): ApplianceProcess {
    return this.#server.appliance;
  }

  /** Of the same mirror: to a cartridge in a directory, durable; to qcow2, flushed at the end, and left to the cache. */
  async image(): Promise<void> {
    await this.#fill('db', sizeBytes);
    process.stdout.write(`\n${printBytes(sizeBytes)} of data to one image\n`);
    const target = `${this.#folder}/peer.qcow2`;
    const convert = (cache: string) => async (): Promise<number> => {
      const took = await settledSecondsOf(() =>
        succeed('qemu-img', [
          ...['convert', '-f', 'raw', '-O', 'qcow2', '-t', cache],
          ...[this.#server.uri('db@mark:full'), target],
        ]),
      );
      rmSync(target);
      return took;
    };
    const [tape, zstd, flushed, cached] = (await inTurn(
      [
        () => this.#written('db', { kind: 'image', at: 'mark:full' }),
        () => this.#written('db', { kind: 'image', at: 'mark:full', zstdLevel: 1 }),
        convert('writeback'),
        convert('unsafe'),
      ],
      rounds,
    )) as [number, number, number, number];
    const rate = (took: number): number => sizeBytes / took / 1e6;
    const figures = this.#figures;
    figures.say('image tape, to qemu-img convert that flushes', flushed / tape, 'x', '>= 0.6, goal 1.0');
    figures.say('  image tape', rate(tape), 'MB/s');
    figures.say('  image tape, zstd level 1 (random data)', rate(zstd), 'MB/s');
    figures.say('  qemu-img convert -t writeback', rate(flushed), 'MB/s');
    figures.say('  qemu-img convert -t unsafe, nothing durable', rate(cached), 'MB/s');
  }

  async change(): Promise<void> {
    await this.#fill('large', changeBytes);
    const full = await this.#archived('large', { kind: 'image', at: 'mark:full' });
    const random = new SeededRandom(9);
    const client = await connectNbd(this.#server.uri('large'));
    const data = Buffer.alloc(PIECE, 0x5a);
    for (let done = 0; done < changeBytes / 100; done += PIECE)
      await client.write(random.below(changeBytes / PIECE) * PIECE, data);
    await client.flush();
    await client.close();
    process.stdout.write(`\n${printBytes(changeBytes)}, of which 1 % has changed\n`);
    const [image, difference] = (await inTurn(
      [
        () => this.#written('large', { kind: 'image', at: 'mark:full' }),
        () => this.#written('large', { kind: 'difference', at: 'latest', from: full }),
      ],
      Math.min(rounds, 3),
    )) as [number, number];
    this.#figures.say('difference tape of 1 %, to the image', difference / image, 'x', '<= 0.03');
    this.#figures.say('  image tape', image, 's');
    this.#figures.say('  difference tape', difference, 's');
    await this.#appliance.delete(`/tapes/${full}?erase=true`);
    await this.#appliance.delete('/volumes/large');
  }

  /** Of a volume while its own tapes are written, one after another. */
  async writes(): Promise<void> {
    if (!asked.has('image')) await this.#fill('db', sizeBytes);
    const load = { rw: 'randwrite', blockBytes: 4096, depth: 32, fsync: 0, sizeBytes, seconds } as const;
    const alone: Measured[] = [];
    const beside: Measured[] = [];
    const rates: number[] = [];
    for (let round = 0; round <= rounds; round += 1) {
      await succeed('sync', []);
      const quiet = await measure(this.#server.uri('db'), this.#server.pid, load);
      const writing = this.#writeOn();
      const busy = await measure(this.#server.uri('db'), this.#server.pid, load);
      const rate = await writing.end();
      if (round === 0) continue; // segments are new
      alone.push(quiet);
      beside.push(busy);
      rates.push(rate);
    }
    const of = (runs: readonly Measured[], pick: (each: Measured) => number): number =>
      median(runs.map(pick));
    const iops = ({ iops: each }: Measured): number => each;
    const p99 = ({ p99Us }: Measured): number => p99Us;
    const figures = this.#figures;
    process.stdout.write('\n4 KiB random writes of a guest, depth 32\n');
    figures.say('while a tape is written, to without', of(beside, iops) / of(alone, iops), 'x', '>= 0.7');
    figures.say('  p99 of their latencies', of(beside, p99) / of(alone, p99), 'x');
    figures.say('  writes a second without', of(alone, iops), '');
    figures.say('  writes a second while a tape is written', of(beside, iops), '');
    figures.say('  the tape meanwhile', median(rates) / 1e6, 'MB/s');
  }

  /** Tapes without a pause until `end`, which gives the bytes a second that were read for them. */
  #writeOn(): { end(): Promise<number> } {
    let ending = false;
    const began = performance.now();
    const work = async (): Promise<number> => {
      let bytes = 0;
      while (!ending) {
        const job = await this.#ask('db', { kind: 'image', at: 'mark:full' });
        for (;;) {
          const now = await this.#job(job);
          if (now.state !== 'queued' && now.state !== 'running') {
            assert.equal(now.state, 'done', now.error?.message);
            await this.#appliance.delete(`/tapes/${now.archive}?erase=true`);
            bytes += sizeBytes;
            break;
          }
          if (ending) {
            bytes += now.progress?.bytesDone ?? 0;
            await this.#appliance.delete(`/tape-jobs/${job.job}`);
            break;
          }
          await pause(100);
        }
      }
      return bytes;
    };
    const working = work();
    return {
      end: async () => {
        ending = true;
        const tookMs = performance.now() - began;
        return ((await working) * 1000) / tookMs;
      },
    };
  }

  async #ask(volume: string, wish: object): Promise<Job> {
    return (await this.#appliance.post<{ job: Job }>(`/volumes/${volume}/tapes`, wish)).job;
  }

  async #job({ job }: Job): Promise<Job & { progress: { bytesDone: number } | null }> {
    return (
      await this.#appliance.get<{ job: Job & { progress: { bytesDone: number } | null } }>(
        `/tape-jobs/${job}`,
      )
    ).job;
  }

  /** An archive, which stays. */
  async #archived(volume: string, wish: object): Promise<string> {
    const job = await this.#ask(volume, wish);
    for (;;) {
      const now = await this.#job(job);
      if (now.state === 'done') return now.archive;
      assert.ok(now.state === 'queued' || now.state === 'running', `${now.state}: ${now.error?.message}`);
      await pause(JOB_EVERY_MS);
    }
  }

  /** Seconds from the wish to the durable archive, which is erased then. */
  async #written(volume: string, wish: object): Promise<number> {
    let archive = '';
    const took = await settledSecondsOf(async () => (archive = await this.#archived(volume, wish)));
    await this.#appliance.delete(`/tapes/${archive}?erase=true`);
    return took;
  }

  #fill(name: string, bytes: number): Promise<void> {
    return fillVolume(this.#appliance, name, bytes, this.#server.uri(name));
  }
}

installTools();
const figures = new Figures({ 'qemu-img': (await succeed('qemu-img', ['--version'])).split('\n')[0]! });
{
  await using folder = await benchFolder();
  mkdirSync(`${folder.it}/library`);
  const env = { MIM_TAPE_LIBRARY: `file://${folder.it}/library` };
  await using server = await held(startAppliance(folder.it, env), (each) => each.stop());
  const bench = new Bench(server.it, folder.it, figures);
  if (asked.has('image')) await bench.image();
  if (asked.has('change')) await bench.change();
  if (asked.has('writes')) await bench.writes();
}
figures.write(values.out);
