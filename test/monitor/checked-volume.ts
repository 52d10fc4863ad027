// What tests of checks share: disks with a file system, programs that check, and what a monitor has left on this machine.
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { connectNbd } from '@midmirror/nbd';
import { type ApplianceProcess, succeed } from '../appliance/appliance-process.ts';

/** Of each ext4 here. */
export const BLOCK_BYTES = 4096;
const POLL_MS = 20;
const WAIT_MS_MAX = 120_000;

/** An ext4 with the files of `fill`'s folder, as a file. */
export async function ext4Image(
  folder: string,
  sizeBytes: number,
  fill: (source: string) => void | Promise<void>,
): Promise<string> {
  const [source, image] = [`${folder}/source`, `${folder}/ext4.img`];
  mkdirSync(source);
  await fill(source);
  writeFileSync(image, '');
  truncateSync(image, sizeBytes);
  // Nothing is left to do for the kernel once it is mounted.
  const lazy = ['-E', 'lazy_itable_init=0,lazy_journal_init=0'];
  await succeed('mkfs.ext4', ['-q', '-F', '-b', String(BLOCK_BYTES), ...lazy, '-d', source, image]);
  rmSync(source, { recursive: true });
  return image;
}

/** Where the block with an inode is in an ext4, and the inode in that. */
export async function inodePlace(
  image: string,
  inode: number,
): Promise<{ blockStart: number; offsetInBlock: number }> {
  const said = await succeed('debugfs', ['-R', `imap <${inode}>`, image]);
  const [, block, offset] = /located at block (\d+), offset 0x([0-9a-f]+)/.exec(said)!;
  return { blockStart: Number(block) * BLOCK_BYTES, offsetInBlock: Number.parseInt(offset!, 16) };
}

/** A block of an ext4 that is no file's, and far from those that are. */
export async function freeBlock(image: string): Promise<number> {
  const said = await succeed('debugfs', ['-R', 'ffb 1 2500', image]);
  return Number(/(\d+)\s*$/.exec(said)![1]);
}

/** A volume of the image's size with its bytes. */
export async function volumeOf(appliance: ApplianceProcess, name: string, image: string): Promise<void> {
  const sizeBytes = Number(await succeed('stat', ['-c', '%s', image]));
  await appliance.post('/volumes', { name, sizeBytes });
  await succeed('nbdcopy', ['--flush', image, appliance.uri(name)]);
}

/** One write to volume `db`, of a block full of the text. */
export async function writeBlock(appliance: ApplianceProcess, block: number, text: string): Promise<void> {
  const client = await connectNbd(appliance.uri('db'));
  await client.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, text));
  await client.flush();
  await client.close();
}

/** Of volume `db`. */
export async function snapshot(appliance: ApplianceProcess): Promise<void> {
  await appliance.post('/volumes/db/syncs', { closeSnapshot: true });
}

/** A shell script that is a check. */
export function program(folder: string, name: string, body: string): string {
  const path = `${folder}/${name}.sh`;
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

export interface ShownVerdict {
  check: string;
  seq: number;
  verdict: 'good' | 'bad' | 'cannot-tell';
  reason: string;
  reusedFrom: number | null;
  output: string;
}

/** Newest point first. */
export async function verdicts(
  appliance: ApplianceProcess,
  volume: string,
  check: string,
): Promise<ShownVerdict[]> {
  return (
    await appliance.get<{ verdicts: ShownVerdict[] }>(`/volumes/${volume}/verdicts?check=${check}&limit=100`)
  ).verdicts;
}

export interface ShownJob {
  job: string;
  task: string;
  check: string;
  cause: string;
  status: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  probes: number;
  reused: number;
  probesMax: number | null;
  error: { code: string; message: string } | null;
  end: {
    kind: string;
    lastGood: { seq: number } | null;
    firstBad: { seq: number } | null;
    unsteady: unknown[];
    writes: { seq: number }[];
  } | null;
}

export async function jobs(appliance: ApplianceProcess): Promise<ShownJob[]> {
  return (await appliance.get<{ jobs: ShownJob[] }>('/check-jobs')).jobs;
}

/** One point by one check: the verdict that is kept. */
export async function certify(
  appliance: ApplianceProcess,
  volume: string,
  check: string,
  at = 'latest',
): Promise<ShownVerdict> {
  const { job } = await appliance.post<{ job: ShownJob }>(`/volumes/${volume}/certifications`, { check, at });
  const { end } = await ended(appliance, job.job);
  const { seq } = await appliance.get<{ seq: number }>(
    `/volumes/${volume}/resolve?at=${encodeURIComponent(at)}`,
  );
  const all = await verdicts(appliance, volume, check);
  const found = all.find((each) => each.seq === seq);
  assert.ok(found, JSON.stringify({ end, all }));
  const told = { good: 'certified', bad: 'condemned', 'cannot-tell': 'cannot-tell' }[found.verdict];
  assert.equal(end?.kind, told);
  return found;
}

/** Fails unless it is done. */
export async function ended(appliance: ApplianceProcess, job: string): Promise<ShownJob> {
  const last = await until(`the end of job ${job}`, async () => {
    const { job: now } = await appliance.get<{ job: ShownJob }>(`/check-jobs/${job}`);
    return now.status !== 'queued' && now.status !== 'running' && now;
  });
  assert.equal(last.status, 'done', last.error?.message);
  return last;
}

/** The newest walk that a check has made by itself, at its end; fails unless there are so many. */
export async function walkedByItself(
  appliance: ApplianceProcess,
  check: string,
  times = 1,
): Promise<ShownJob> {
  const job = await until(`walk ${times} of ${check}`, async () => {
    const own = (await jobs(appliance)).filter(
      (each) => each.check === check && each.cause === 'retroactive',
    );
    return own.length === times && own[0];
  });
  return await ended(appliance, job.job);
}

/** Polls; fails after two minutes. */
export async function until<T>(
  what: string,
  look: () => T | null | undefined | false | Promise<T | null | undefined | false>,
): Promise<T> {
  for (let waited = 0; waited < WAIT_MS_MAX; waited += POLL_MS) {
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    await pause(POLL_MS);
  }
  throw new Error(`waited in vain for ${what}`);
}

/** What the monitor of a data directory has on this machine, each by a name of its own. */
export function leftOf(dataDirectory: string): string[] {
  const monitor = `${dataDirectory}/monitor/`;
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(monitor))
    .map((path) => `mount ${path}`);
  const loops = readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop'))
    .map((name) => textOf(`/sys/block/${name}/loop/backing_file`).trimEnd())
    .filter((file) => file.startsWith(monitor))
    .map((file) => `loop device of ${file}`);
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && textOf(`/proc/${name}/environ`).includes(monitor))
    .map((id) => `process ${id} ${textOf(`/proc/${id}/cmdline`).replaceAll('\0', ' ')}`);
  const folders = ['runs', 'mounts'].flatMap((name) =>
    existsSync(`${monitor}${name}`)
      ? readdirSync(`${monitor}${name}`).map((each) => `${monitor}${name}/${each}`)
      : [],
  );
  return [...mounts, ...loops, ...processes, ...folders];
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // it has just gone
  }
}

export async function clonesOf(appliance: ApplianceProcess): Promise<string[]> {
  return (await appliance.get<{ clones: { name: string }[] }>('/clones')).clones.map(({ name }) => name);
}
