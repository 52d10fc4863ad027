// `npm run bench:restore [-- --size 2GiB --change-size 10GiB --rounds 5 --out restore-bench.json]`: restores of a point
// onto a new file and onto an NBD export, beside `nbdcopy` of the same mirror in the same run, alternating; and a restore
// that changes 1 % of a large volume beside a full one. Each is a process from its start to its end, as a person waits
// for it. Ratios of medians; no bar is asserted here.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parseBytes, printBytes, SeededRandom } from '@midmirror/basis';
import { connectNbd } from '@midmirror/nbd';
import { ApplianceProcess, cleanEnvironment, run, succeed } from '../appliance/appliance-process.ts';
import { Figures } from './figures.ts';
import { fillVolume } from './fill-volume.ts';
import { benchFolder, held } from './held.ts';
import { inTurn, settledSecondsOf } from './in-turn.ts';

const PIECE = 64 << 10;
const RATE_BAR = '≥ 0.5 (0.9)';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '2GiB' },
    'change-size': { type: 'string', default: '10GiB' },
    rounds: { type: 'string', default: '5' },
    out: { type: 'string' },
  },
});
const sizeBytes = parseBytes(values.size, '--size');
const changeBytes = parseBytes(values['change-size'], '--change-size');
const rounds = Number(values.rounds);

interface Contestant {
  name: string;
  before(): Promise<void>;
  act(): Promise<unknown>;
}

/** Seconds of each, in turn. */
async function race(contestants: readonly Contestant[]): Promise<number[]> {
  const ways = contestants.map(({ before, act }) => async () => {
    await before();
    return await settledSecondsOf(act);
  });
  return await inTurn(ways, rounds);
}

async function withTarget(folder: string, act: (uri: string, disk: string) => Promise<void>): Promise<void> {
  const [socket, disk] = [`${folder}/target.sock`, `${folder}/target.img`];
  writeFileSync(disk, '');
  const server: ChildProcess = spawn('nbdkit', ['-f', '-U', socket, 'file', disk], {
    env: cleanEnvironment(),
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => server.once('close', resolve));
  try {
    while (!existsSync(socket)) await pause(20);
    await act(`nbd+unix:///?socket=${socket}`, disk);
  } finally {
    server.kill();
    await ended;
  }
}

async function measure(appliance: ApplianceProcess, folder: string): Promise<void> {
  const file = `${folder}/restored.img`;
  const mim = async (...args: string[]): Promise<void> => {
    const words = ['services/mim/main.ts', '--api', appliance.api, '--json', 'restore', ...args];
    const ran = await run(process.execPath, words, { env: { MIM_RESTORE_DIR: `${folder}/state` } });
    assert.equal(ran.status, 0, ran.stderr);
  };
  const gone = async (): Promise<void> => rmSync(file, { force: true });
  const at = ['--at', 'mark:full'];
  const mirror = appliance.uri('db@mark:full');

  process.stdout.write(`\n${printBytes(sizeBytes)} of data\n`);
  const rates = async (what: string, contestants: readonly Contestant[]): Promise<void> => {
    const [ours, plain, peer] = (await race(contestants)) as [number, number, number];
    const rate = (each: number): number => sizeBytes / each / 1e6;
    figures.say(`${what}: nbdcopy --flush`, rate(peer), 'MB/s');
    figures.say(`${what}: mim restore --no-verify`, rate(plain), 'MB/s');
    figures.say(`${what}: mim restore, read back`, rate(ours), 'MB/s');
    figures.say(`${what}: mim restore --no-verify, to nbdcopy`, peer / plain, '', RATE_BAR);
    figures.say(`${what}: mim restore, read back, to nbdcopy`, peer / ours, '', RATE_BAR);
  };
  const ours = (...more: string[]) => ({ before: gone, act: () => mim('db', ...at, '--to', file, ...more) });
  await rates('onto a new file', [
    { name: 'read back', ...ours() },
    { name: 'plain', ...ours('--no-verify') },
    { name: 'nbdcopy', before: gone, act: () => succeed('nbdcopy', ['--flush', mirror, file]) },
  ]);
  rmSync(file, { force: true });

  await withTarget(folder, async (uri, disk) => {
    // nbdkit's file keeps its size: emptied and made long again behind its back, while nobody is connected.
    const empty = async (): Promise<void> => {
      await succeed('truncate', ['-s', '0', disk]);
      await succeed('truncate', ['-s', String(sizeBytes), disk]);
    };
    const onto = (...more: string[]) => ({
      before: empty,
      act: () => mim('db', ...at, '--to', uri, '--yes', ...more),
    });
    await rates('onto an empty NBD export', [
      { name: 'read back', ...onto() },
      { name: 'plain', ...onto('--no-verify') },
      { name: 'nbdcopy', before: empty, act: () => succeed('nbdcopy', ['--flush', mirror, uri]) },
    ]);
  });
  rmSync(`${folder}/target.img`);
  await appliance.delete('/volumes/db');
}

async function change(
  appliance: ApplianceProcess,
  name: string,
  mark: string,
  pieceBytes: number,
): Promise<void> {
  const random = new SeededRandom(9);
  const client = await connectNbd(appliance.uri(name));
  const data = Buffer.alloc(pieceBytes, 0x5a);
  for (let done = 0; done < changeBytes / 100; done += pieceBytes)
    await client.write(random.below(changeBytes / pieceBytes) * pieceBytes, data);
  await client.flush();
  await client.close();
  await appliance.post(`/volumes/${name}/marks`, { name: mark });
}

async function measureChange(appliance: ApplianceProcess, folder: string): Promise<void> {
  const file = `${folder}/large.img`;
  await fillVolume(appliance, 'large', changeBytes);
  await change(appliance, 'large', 'pieces', PIECE);
  await change(appliance, 'large', 'sectors', 4096);
  process.stdout.write(`\n${printBytes(changeBytes)}, of which 1 % has changed\n`);
  const mim = async (...args: string[]): Promise<void> => {
    const words = ['services/mim/main.ts', '--api', appliance.api, '--json', 'restore', 'large', ...args];
    const ran = await run(process.execPath, words, { env: { MIM_RESTORE_DIR: `${folder}/state` } });
    assert.equal(ran.status, 0, ran.stderr);
  };
  const onto = (point: string, ...more: string[]) => mim('--at', `mark:${point}`, '--to', file, ...more);
  const nothing = async (): Promise<void> => {};
  const [full, pieces, sectors, compared] = (await race([
    { name: 'full', before: async () => rmSync(file, { force: true }), act: () => onto('full') },
    { name: 'pieces', before: nothing, act: () => onto('pieces', '--yes', '--base', 'mark:full') },
    {
      name: 'sectors',
      before: () => onto('pieces', '--yes'),
      act: () => onto('sectors', '--yes', '--base', 'mark:pieces'),
    },
    { name: 'compared', before: nothing, act: () => onto('full', '--yes') },
  ])) as [number, number, number, number];
  figures.say('full restore onto a new file', full, 's');
  figures.say('1 % in pieces of 64 KiB, base known', pieces, 's');
  figures.say('1 % in pieces of 64 KiB, base known, to full', pieces / full, '', '≤ 0.05');
  figures.say('1 % in pieces of 4 KiB, base known, to full', sectors / full, '');
  figures.say('1 % and more, compared block by block, to full', compared / full, '');
}

const figures = new Figures({ nbdcopy: (await succeed('nbdcopy', ['--version'])).split('\n')[0]! });
{
  await using folder = await benchFolder();
  await using appliance = await held(ApplianceProcess.start(`${folder.it}/data`), (each) => each.stop());
  await fillVolume(appliance.it, 'db', sizeBytes);
  await measure(appliance.it, folder.it);
  if (changeBytes > 0) await measureChange(appliance.it, folder.it);
}
if (values.out !== undefined) figures.write(values.out);
