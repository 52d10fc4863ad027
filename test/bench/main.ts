// `npm run bench [-- --seconds 4 --rounds 3 --out file.json]`: each case side by side with its peer in the same run,
// alternating; ratios of medians. No bar is asserted here: figures of a noisy machine are for people to read.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { printBytes } from '@midmirror/basis';
import { ROOT } from '../appliance/appliance-process.ts';
import { installTools } from '../tools.ts';
import { machine } from './machine.ts';
import { type Load, type Measured, measure, measureFile, median, rssMiB, writtenBytes } from './measure.ts';
import { windowMemory } from './window-memory.ts';
import { type Server, startAppliance, startNbdkit, startQemuNbd } from './servers.ts';

const GIB = 2 ** 30;
const DISK_BYTES = GIB;
/** Seldom, to be fair to the disk: the journal begins one each 16 MiB of such a stream. */
const DISK_SYNC_BYTES = 128 << 20;
/** Below the share at which a volume begins to sync for space. */
const RING_USED_SHARE = 0.6;
const LONG_WINDOW = 'memory of a long window';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '3' },
    out: { type: 'string', default: 'bench.json' },
    only: { type: 'string' },
    /** Of the case "memory of a long window", which runs only when it is named: it takes a quarter of an hour. */
    writes: { type: 'string', default: '10000000' },
    snapshots: { type: 'string', default: '10000' },
  },
});
const seconds = Number(values.seconds);
const rounds = Number(values.rounds);

interface Line {
  case: string;
  peer: string;
  bar: string;
  goal: string;
  ratio: number;
  ours: Measured | null;
  theirs: Measured | null;
}

/** What the API says of a volume, as far as it matters here. */
interface View {
  latest: { seq: number };
  journal: { bytesUsed: number; bytesMax: number };
}

const lines: Line[] = [];

function medians(runs: readonly Measured[]): Measured {
  const of = (pick: (m: Measured) => number): number => median(runs.map(pick));
  return {
    iops: of((m) => m.iops),
    megabytesPerSecond: of((m) => m.megabytesPerSecond),
    p50Us: of((m) => m.p50Us),
    p99Us: of((m) => m.p99Us),
    cpu: of((m) => m.cpu),
    rssMiB: of((m) => m.rssMiB),
  };
}

function say(line: Line): void {
  lines.push(line);
  const shown = (m: Measured | null): string =>
    m === null
      ? ''
      : `${m.iops.toFixed(0)} IOPS ${m.megabytesPerSecond.toFixed(0)} MB/s p50 ${m.p50Us.toFixed(0)} µs p99 ${m.p99Us.toFixed(0)} µs CPU ${m.cpu.toFixed(2)} RSS ${m.rssMiB.toFixed(0)} MiB`;
  process.stdout.write(
    `${line.case}\n  ratio ${line.ratio.toFixed(2)} to ${line.peer} (bar ${line.bar}, goal ${line.goal})\n  ours   ${shown(line.ours)}\n`,
  );
  if (line.theirs !== null) process.stdout.write(`  theirs ${shown(line.theirs)}\n`);
}

/** Alternates between the two, so that a slow minute of the machine hits both. */
async function sideBySide(
  name: string,
  bars: [string, string],
  load: Load,
  ours: () => Promise<Measured>,
  theirs: () => Promise<Measured>,
  peer: string,
): Promise<void> {
  if (values.only !== undefined && !name.includes(values.only)) return;
  const mine: Measured[] = [];
  const other: Measured[] = [];
  for (let round = 0; round < rounds; round += 1) {
    mine.push(await ours());
    other.push(await theirs());
  }
  const a = medians(mine);
  const b = medians(other);
  const ratio = load.blockBytes > 4096 ? a.megabytesPerSecond / b.megabytesPerSecond : a.iops / b.iops;
  say({ case: name, peer, bar: bars[0], goal: bars[1], ratio, ours: a, theirs: b });
}

function load(change: Partial<Load>): Load {
  return {
    rw: 'randwrite',
    blockBytes: 4096,
    depth: 32,
    fsync: 0,
    sizeBytes: DISK_BYTES,
    seconds,
    ...change,
  };
}

async function main(): Promise<void> {
  installTools();
  const folder = mkdtempSync(`${ROOT}/.bench-`);
  const opened: Server[] = [];
  try {
    const ours = await startAppliance(folder);
    const nbdkit = await startNbdkit(folder, DISK_BYTES);
    const qemu = await startQemuNbd(folder, DISK_BYTES);
    opened.push(ours, nbdkit, qemu);
    await cases(folder, ours, nbdkit, qemu);
  } finally {
    for (const server of opened) await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
  const report = { machine: machine(), seconds, rounds, lines };
  writeFileSync(values.out, `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(`\n${JSON.stringify(report.machine)}\nwritten to ${values.out}\n`);
}

async function cases(
  folder: string,
  ours: Awaited<ReturnType<typeof startAppliance>>,
  nbdkit: Server,
  qemu: Server,
): Promise<void> {
  const { appliance } = ours;
  const sync = (volume: string): Promise<unknown> => appliance.post(`/volumes/${volume}/syncs`, {});
  const fill = load({ rw: 'write', blockBytes: 1 << 20, depth: 4, seconds: Math.ceil(seconds) });

  /** A volume of its own for each case, removed after it: files of another case would take its page cache. */
  const onVolume = async (
    cases: string[],
    act: (name: string, uri: string) => Promise<void>,
  ): Promise<void> => {
    if (values.only !== undefined && !cases.some((name) => name.includes(values.only!))) return;
    await appliance.post('/volumes', { name: 'bench', sizeBytes: DISK_BYTES });
    await act('bench', ours.uri('bench'));
    await appliance.delete('/volumes/bench');
  };
  /**
   * Brought to its steady state: the segments that a round will need have been used, and are used again. By bytes,
   * not by time: a disk that gives out its blocks on demand takes first writes at a tenth of its speed.
   */
  const steady = async (cases: string[], act: (name: string, uri: string) => Promise<void>): Promise<void> =>
    onVolume(cases, async (name, uri) => {
      for (let used = 0, max = 1; used < RING_USED_SHARE * max; ) {
        await measure(uri, ours.pid, fill);
        const { journal } = await appliance.get<View>(`/volumes/${name}`);
        ({ bytesUsed: used, bytesMax: max } = journal);
      }
      await sync(name);
      await measure(uri, ours.pid, fill);
      await sync(name);
      await act(name, uri);
    });
  const rested = async (name: string, uri: string, kind: Load): Promise<Measured> => {
    await sync(name);
    return await measure(uri, ours.pid, kind);
  };
  for (const peer of [nbdkit, qemu]) await measure(peer.uri(''), peer.pid, fill);

  const random = load({});
  const onNbdkit = '4 KiB random write, depth 32';
  const onQcow2 = '4 KiB random write, depth 32, qcow2';
  const bytesWritten = 'bytes written per guest byte, 4 KiB random writes, no sync';
  await steady([onNbdkit, onQcow2, bytesWritten], async (name, uri) => {
    await amplification(bytesWritten, ours, name, random);
    await sideBySide(
      onNbdkit,
      ['≥ 0.7', '≥ 1.0'],
      random,
      () => rested(name, uri, random),
      () => measure(nbdkit.uri(''), nbdkit.pid, random),
      nbdkit.name,
    );
    await sideBySide(
      onQcow2,
      ['≥ 2.0', '≥ 3.0'],
      random,
      () => rested(name, uri, random),
      () => measure(qemu.uri(''), qemu.pid, random),
      qemu.name,
    );
  });

  const sequential = load({ rw: 'write', blockBytes: 128 << 10, depth: 16 });
  const inSequence = '128 KiB sequential write, depth 16';
  const toTheDisk = '128 KiB sequential write, to the file system alone';
  const theDisk = '128 KiB sequential write, the file system alone instead of us';
  await steady([inSequence, toTheDisk, theDisk], async (name, uri) => {
    await sideBySide(
      inSequence,
      ['≥ 0.6', '≥ 0.9'],
      sequential,
      () => rested(name, uri, sequential),
      () => measure(nbdkit.uri(''), nbdkit.pid, sequential),
      nbdkit.name,
    );
    // nbdkit is not asked to flush: its writes go to memory. This is what the disk takes.
    const onDisk = (): Promise<Measured> => measureFile(`${folder}/plain`, sequential, DISK_SYNC_BYTES);
    await onDisk();
    // No server that keeps what it has answered can do better than this one, by this machine's disk.
    await sideBySide(
      theDisk,
      ['-', '-'],
      sequential,
      onDisk,
      () => measure(nbdkit.uri(''), nbdkit.pid, sequential),
      nbdkit.name,
    );
    await sideBySide(
      toTheDisk,
      ['-', '-'],
      sequential,
      () => rested(name, uri, sequential),
      onDisk,
      `fio, written out meanwhile, with an fdatasync each ${printBytes(DISK_SYNC_BYTES)}`,
    );
  });

  const flushed = load({ depth: 1, fsync: 1 });
  const withFlushes = '4 KiB random write, depth 1, flush after each';
  await steady([withFlushes], (name, uri) =>
    sideBySide(
      withFlushes,
      ['≥ 1.0', '≥ 1.8'],
      flushed,
      () => rested(name, uri, flushed),
      () => measure(nbdkit.uri(''), nbdkit.pid, flushed),
      nbdkit.name,
    ),
  );

  // Every block written and moved to the MIM, then about half of them written again.
  const half = 512 << 20;
  const reads = load({ rw: 'randread', sizeBytes: half });
  const ofVolume = '4 KiB random read, half journal half MIM, depth 32';
  const ofMirror = '4 KiB random read of a mirror';
  await onVolume([ofVolume, ofMirror], async (name, uri) => {
    await measure(uri, ours.pid, { ...fill, sizeBytes: half });
    await sync(name);
    await measure(uri, ours.pid, load({ sizeBytes: half, seconds: 2 }));
    await sideBySide(
      ofVolume,
      ['≥ 0.6', '≥ 1.0'],
      reads,
      () => measure(uri, ours.pid, reads),
      () => measure(nbdkit.uri(''), nbdkit.pid, reads),
      nbdkit.name,
    );
    const { seq } = await appliance.get<{ seq: number }>(`/volumes/${name}/resolve?at=latest`);
    const mirror = ours.uri(`${name}@seq:${seq}`);
    await sideBySide(
      ofMirror,
      ['≥ 0.5', '≥ 0.9'],
      reads,
      () => measure(mirror, ours.pid, reads),
      () => measure(uri, ours.pid, reads),
      'the live volume',
    );
  });

  const whileSyncing = '4 KiB random write while a sync runs continuously';
  await steady([whileSyncing], (name, uri) =>
    sideBySide(
      whileSyncing,
      ['≥ 0.5', '≥ 0.8'],
      random,
      async () => {
        let running = true;
        const loop = (async () => {
          while (running) await sync(name);
        })();
        loop.catch(() => {}); // told below, when the measuring has ended
        const measured = await measure(uri, ours.pid, random);
        running = false;
        await loop;
        return measured;
      },
      () => rested(name, uri, random),
      'writes without a sync',
    ),
  );
  if (values.only === undefined || 'memory'.includes(values.only)) await memory();
  if (values.only !== undefined && LONG_WINDOW.includes(values.only)) await longWindow();
}

async function longWindow(): Promise<void> {
  for await (const measured of windowMemory(Number(values.writes), Number(values.snapshots))) {
    const { when, holding, rssMiB, peakMiB } = measured;
    const line = { peer: 'nothing', bar: '< 300', goal: '', ours: null, theirs: null };
    say({ ...line, case: `${LONG_WINDOW}, RSS in MiB ${when}: ${holding}`, ratio: rssMiB });
    say({ ...line, case: `${LONG_WINDOW}, largest RSS in MiB ${when}`, ratio: peakMiB });
  }
}

/** What 4 KiB writes cost: in the pool by its own count of the ring, and in all (with the catalogue) by the kernel's. */
async function amplification(
  title: string,
  ours: Awaited<ReturnType<typeof startAppliance>>,
  name: string,
  random: Load,
): Promise<void> {
  const look = async (): Promise<{ seq: number; pool: number; all: number }> => {
    await settle();
    const { latest, journal } = await ours.appliance.get<View>(`/volumes/${name}`);
    return { seq: latest.seq, pool: journal.bytesUsed, all: writtenBytes(ours.pid) };
  };
  const before = await look();
  const measured = await measure(ours.uri(name), ours.pid, random);
  const after = await look();
  const guestBytes = (after.seq - before.seq) * 4096;
  const line = { peer: 'the guest', goal: '', ours: measured, theirs: null };
  say({
    ...line,
    case: `${title}: to the pool`,
    bar: '≤ 1.05',
    ratio: (after.pool - before.pool) / guestBytes,
  });
  say({
    ...line,
    case: `${title}: by the process in all`,
    bar: '-',
    ratio: (after.all - before.all) / guestBytes,
  });
}

/** A process of its own: 64 GiB, a million extents of 4 KiB in the journal. */
async function memory(): Promise<void> {
  const folder = mkdtempSync(`${ROOT}/.bench-`);
  const server = await startAppliance(folder);
  try {
    await server.appliance.post('/volumes', { name: 'large', sizeBytes: 64 * GIB });
    let extents = 0;
    for (let round = 0; round < 60 && extents < 1_000_000; round += 1) {
      await measure(server.uri('large'), server.pid, load({ sizeBytes: 64 * GIB, seconds: 5 }));
      extents = (await server.appliance.get<{ journal: { extents: number } }>('/volumes/large')).journal
        .extents;
    }
    await settle();
    const rss = rssMiB(server.pid);
    say({
      case: `memory: 64 GiB volume, ${extents} live journal extents, RSS in MiB`,
      peer: 'nothing',
      bar: '< 200',
      goal: '',
      ratio: rss,
      ours: null,
      theirs: null,
    });
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Until what is under way is on the disk. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 1500));
}

await main();
