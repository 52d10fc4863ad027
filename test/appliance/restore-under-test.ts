// What the tests of restores share: a volume with a history and its twin in memory, and `mim restore` as a process.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { SeededRandom } from '@midmirror/basis';
import { connectNbd, type NbdClient } from '@midmirror/nbd';
import { readRecord } from '@midmirror/restore';
import {
  type ApiUser,
  type ApplianceProcess,
  cleanEnvironment,
  type Ran,
  ROOT,
} from './appliance-process.ts';

export const MIB = 1 << 20;

export interface Point {
  seq: number;
  time: string;
}

/** Lines of `mim --json restore`. */
export interface Lines {
  clone?: { name: string; uri: string };
  plan?: {
    how: string;
    ranges: number;
    bytes: number;
    dataBytes: number;
    doneBytes: number;
    comparedByReadingBytes: number;
    target: string;
    point: Point | null;
  };
  done?: {
    bytesRead: number;
    bytesWritten: number;
    bytesZeroed: number;
    bytesVerified: number;
    fromStorage: boolean;
    undoMark?: string;
  };
}

export function linesOf(stdout: string): Lines {
  const all: Lines = {};
  for (const line of stdout.split('\n').filter((each) => each !== ''))
    Object.assign(all, JSON.parse(line) as Lines);
  return all;
}

/** A guest's disk and what it should hold. */
export class Guest {
  readonly bytes: Buffer;
  readonly #client: NbdClient;
  readonly #random: SeededRandom;

  private constructor(client: NbdClient, seed: number) {
    this.#client = client;
    this.bytes = Buffer.alloc(client.sizeBytes);
    this.#random = new SeededRandom(seed);
  }

  static async connect(uri: string, seed = 1): Promise<Guest> {
    return new Guest(await connectNbd(uri), seed);
  }

  async write(start: number, length: number): Promise<void> {
    const data = Buffer.alloc(length);
    // Each sector its own: bytes at another place than theirs are seen.
    for (let at = 0; at < length; at += 512) {
      data.fill(1 + this.#random.below(255), at, at + 512);
      data.writeUInt32LE((start + at) / 512, at);
    }
    data.copy(this.bytes, start);
    await this.#client.write(start, data);
  }

  async zeroes(start: number, length: number): Promise<void> {
    this.bytes.fill(0, start, start + length);
    await this.#client.zeroes(start, length);
  }

  /** Writes and zeroes of some KiB all over the disk, or its first `withinBytes`. */
  async scatter(count: number, withinBytes = this.bytes.length): Promise<void> {
    for (let i = 0; i < count; i += 1) {
      const sectors = 1 + this.#random.below(this.#random.chance(0.1) ? 1024 : 32);
      const start = this.#random.below(withinBytes / 512 - sectors) * 512;
      if (this.#random.chance(0.25)) await this.zeroes(start, sectors * 512);
      else await this.write(start, sectors * 512);
    }
  }

  async close(): Promise<Buffer> {
    await this.#client.flush();
    await this.#client.close();
    return this.bytes;
  }
}

export class Restores {
  readonly #appliance: ApiUser;
  readonly #folder: string;

  constructor(appliance: ApiUser, folder: string) {
    this.#appliance = appliance;
    this.#folder = folder;
  }

  get env(): Record<string, string> {
    return { MIM_RESTORE_DIR: `${this.#folder}/state` };
  }

  run(...args: string[]): Promise<Ran> {
    return this.start(...args).ended;
  }

  /** The lines of a restore that must succeed. */
  async lines(...args: string[]): Promise<Lines> {
    const { status, stdout, stderr } = await this.run('--json', ...args);
    assert.equal(status, 0, `mim restore ${args.join(' ')}: ${stderr}`);
    return linesOf(stdout);
  }

  async fails(status: number, message: RegExp, ...args: string[]): Promise<Ran> {
    const ran = await this.run(...args);
    assert.equal(ran.status, status, `mim restore ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
    assert.match(ran.stderr, message);
    return ran;
  }

  start(...args: string[]): { child: ChildProcess; ended: Promise<Ran> } {
    const [json, rest] = args[0] === '--json' ? [['--json'], args.slice(1)] : [[], args];
    const words = [...json, ...(rest[0] === 'export' ? rest : ['restore', ...rest])];
    const child = spawn(process.execPath, ['services/mim/main.ts', '--api', this.#appliance.api, ...words], {
      cwd: ROOT,
      env: cleanEnvironment(this.env),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const ended = new Promise<Ran>((resolve) =>
      child.on('close', (status) => resolve({ status, stdout, stderr })),
    );
    return { child, ended };
  }
}

/** Fails naming the first place that differs. */
export function assertHolds(path: string, bytes: Buffer, fromBytes = 0): void {
  const file = openSync(path, 'r');
  try {
    const step = Buffer.alloc(MIB);
    for (let at = 0; at < bytes.length; at += MIB) {
      const want = bytes.subarray(at, at + MIB);
      const got = step.subarray(0, readSync(file, step, 0, want.length, fromBytes + at));
      if (got.equals(want)) continue;
      let place = 0;
      while (got[place] === want[place]) place += 1;
      assert.fail(`${path} differs at byte ${at + place}`);
    }
  } finally {
    closeSync(file);
  }
}

export async function assertExportHolds(uri: string, bytes: Buffer): Promise<void> {
  const client = await connectNbd(uri);
  try {
    for (let at = 0; at < bytes.length; at += MIB) {
      const want = bytes.subarray(at, at + MIB);
      assert.ok((await client.read(at, want.length)).equals(want), `${uri} differs in the MiB at ${at}`);
    }
  } finally {
    await client.close();
  }
}

export function bytesOnDisk(path: string): number {
  return statSync(path).blocks * 512;
}

/** A volume `db`, most of it written by `sizeBytes / 8 MiB` writes. */
export async function fillDisk(
  appliance: ApplianceProcess,
  sizeBytes: number,
  seed: number,
): Promise<Buffer> {
  await appliance.post('/volumes', { name: 'db', sizeBytes });
  const guest = await Guest.connect(appliance.uri('db'), seed);
  for (let at = 0; at < sizeBytes; at += 8 * MIB) await guest.write(at, 7 * MIB);
  return await guest.close();
}

/** Until so much is noted as done; false: the restore has ended before. */
export async function until(
  recordPath: string,
  doneBytes: number,
  ended: Promise<unknown>,
): Promise<boolean> {
  let over = false;
  void ended.then(() => (over = true));
  while (!over) {
    const record = await readRecord(recordPath).catch(() => null);
    if (record !== null && record.doneBytes >= doneBytes) return true;
    await pause(2);
  }
  return false;
}

/** Makes the volume `db`, with so many writes anywhere in it; what it holds then. */
export async function scattered(
  appliance: ApplianceProcess,
  sizeBytes: number,
  writes: number,
): Promise<Buffer> {
  await appliance.post('/volumes', { name: 'db', sizeBytes });
  const guest = await Guest.connect(appliance.uri('db'));
  await guest.scatter(writes);
  return await guest.close();
}
