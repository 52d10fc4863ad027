// What an open mirror makes on this machine, so that it can be undone, by itself or, when its process was killed, by
// the next one. Everything of it is found by one name: a folder in the state directory. Mounts lie under it, loop devices
// are of files in it, and processes carry it in their environment. Whether its process lives, a lock tells.
import { randomBytes } from 'node:crypto';
import { existsSync, promises as fs, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { type DataLock, lockJob } from '@midmirror/runtime';
import { limits } from './limits.ts';
import { type Machine, required } from './machine.ts';
import { run, start } from './programs.ts';

const OWNER = 'MIDMIRROR_FILES_OF';
const ID = /^[0-9a-f]{12}$/;
/** In its folder: the kernel's NBD device that it has taken. */
const DEVICE_FILE = 'nbd-device';

/** A lock goes when nothing refers to it any more: who forgets an open mirror must not lose it. */
const open = new Set<Session>();

export class Session {
  readonly folder: string;
  readonly machine: Machine;
  readonly #lock: DataLock;

  private constructor(folder: string, machine: Machine, lock: DataLock) {
    this.folder = folder;
    this.machine = machine;
    this.#lock = lock;
    open.add(this);
  }

  static async begin(stateDirectory: string, machine: Machine, openToUsers: boolean): Promise<Session> {
    // Kernel paths are absolute and without links: what is compared with them must be, too.
    const directory = await makeDirectory(stateDirectory);
    for (let tries = 1; ; tries += 1) {
      const id = randomBytes(6).toString('hex');
      const lock = tryLock(directory, id);
      // Somebody who cleans up may have looked at it in this moment, and have taken it away.
      if (lock !== null && existsSync(`${directory}/${id}.lock`)) {
        await fs.mkdir(`${directory}/${id}`, { mode: openToUsers ? 0o711 : 0o700 });
        return new Session(`${directory}/${id}`, machine, lock);
      }
      lock?.release();
      if (tries === limits.beginTriesMax)
        throw new MidmirrorError('io', `${directory} can't be used: locks on files in it do not hold`, {
          hint: 'name a folder of a local disk that can be written',
        });
    }
  }

  /** A process that lives as long as the mirror is open. */
  serve(program: string, args: readonly string[]): ReturnType<typeof start> {
    const server = start(program, args, ['ignore', 'ignore', 'pipe'], { [OWNER]: this.folder });
    // One that does not end must not keep us from it.
    server.unref();
    (server.stderr as Socket).unref();
    return server;
  }

  async recordDevice(device: string): Promise<void> {
    await fs.writeFile(`${this.folder}/${DEVICE_FILE}`, device);
  }

  /** Safe to repeat. Rejects when something is left, which the next session tries again. */
  async end(): Promise<void> {
    await undo(this.folder, this.machine);
    await removeLock(this.folder);
    this.#lock.release();
    open.delete(this);
  }
}

/** Undoes what killed processes have left. What can't be undone is told and left for the next time. */
export async function undoStale(
  stateDirectory: string,
  machine: Machine,
  tell: (message: string) => void,
): Promise<void> {
  const directory = await makeDirectory(stateDirectory);
  const found = (await fs.readdir(directory)).map((name) => name.split('.', 1)[0]!);
  for (const id of new Set(found.filter((name) => ID.test(name)))) {
    const folder = `${directory}/${id}`;
    const lock = tryLock(directory, id);
    if (lock === null) continue; // its process lives
    try {
      if (existsSync(folder)) {
        await undo(folder, machine);
        tell(`${folder}: what a process that was killed has left is undone`);
      }
      await removeLock(folder);
    } catch (error) {
      tell(`${folder}: what a process that was killed has left can't be undone: ${messageOf(error)}`);
    } finally {
      lock.release();
    }
  }
}

function tryLock(directory: string, id: string): DataLock | null {
  try {
    return lockJob(directory, id);
  } catch {
    return null;
  }
}

async function makeDirectory(stateDirectory: string): Promise<string> {
  try {
    await fs.mkdir(stateDirectory, { recursive: true, mode: 0o711 });
    return await fs.realpath(resolve(stateDirectory));
  } catch (cause) {
    throw new MidmirrorError('bad-request', `${stateDirectory} can't be made: ${messageOf(cause)}`, {
      hint: 'mounts of mirrors are kept there; name a folder that can be written',
      cause,
    });
  }
}

async function removeLock(folder: string): Promise<void> {
  for (const end of ['.lock', '.lock.owner']) await fs.rm(`${folder}${end}`, { force: true });
}

/** File systems first, then what they are on, then who serves that, then the folder. */
async function undo(folder: string, machine: Machine): Promise<void> {
  const device = await fs.readFile(`${folder}/${DEVICE_FILE}`, 'utf8').catch(() => null);
  const isServed = processesOf(await processIds(), folder).length > 0;
  const deadline = performance.now() + limits.unmountMsMax;
  await unmountAll(folder, machine, deadline, ({ type }) => !type.startsWith('fuse'));
  await detachLoops(machine, (file) => isWithin(file, folder) || (isServed && file === device));
  await unmountAll(folder, machine, deadline, () => true);
  await endProcesses(folder);
  const left = mountsUnder(folder);
  // What is mounted is never gone through by what removes.
  if (left.length > 0) throw new MidmirrorError('io', `${left[0]!.path} is still mounted`);
  await fs.rm(folder, { recursive: true, force: true });
}

interface Mount {
  path: string;
  type: string;
}

/** The newest first. */
export function mountsUnder(folder: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [before, after] = line.split(' - ', 2) as [string, string | undefined];
    const path = before
      .split(' ')[4]
      ?.replaceAll(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (path === undefined || after === undefined || !isWithin(path, folder)) continue;
    mounts.unshift({ path, type: after.split(' ', 1)[0]! });
  }
  return mounts;
}

function isWithin(path: string, folder: string): boolean {
  return path.startsWith(`${folder}/`);
}

async function unmountAll(
  folder: string,
  machine: Machine,
  deadline: number,
  which: (mount: Mount) => boolean,
): Promise<void> {
  for (;;) {
    const mounts = mountsUnder(folder).filter(which);
    if (mounts.length === 0) return;
    // A program may still look at it: then it is taken out of sight, and ends when that one does.
    const lazy = performance.now() > deadline;
    for (const { path } of mounts) await unmount(machine, path, lazy);
    if (lazy) return;
    if (mountsUnder(folder).some(which)) await pause(limits.pollMs);
  }
}

async function unmount(machine: Machine, path: string, lazy: boolean): Promise<void> {
  if (machine.isRoot) await run(required(machine, 'umount'), [...(lazy ? ['--lazy'] : []), path]);
  else await run(required(machine, 'fusermount3'), ['-u', ...(lazy ? ['-z'] : []), path]);
}

async function detachLoops(machine: Machine, isOurs: (file: string) => boolean): Promise<void> {
  if (!machine.isRoot) return;
  for (const name of (await fs.readdir('/sys/block')).filter((each) => each.startsWith('loop'))) {
    const file = await fs.readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => null);
    if (file !== null && isOurs(file.trimEnd().replace(/ \(deleted\)$/, '')))
      await run(required(machine, 'losetup'), ['--detach', `/dev/${name}`]);
  }
}

async function endProcesses(folder: string): Promise<void> {
  const began = performance.now();
  for (let signal: NodeJS.Signals = 'SIGTERM'; ; ) {
    const processes = processesOf(await processIds(), folder);
    if (processes.length === 0) return;
    const waited = performance.now() - began;
    if (waited > limits.endedMsMax)
      throw new MidmirrorError('io', `process ${processes.join(', ')} does not end`);
    if (waited > limits.endedMsMax / 4) signal = 'SIGKILL';
    for (const id of processes) {
      try {
        process.kill(id, signal);
      } catch {
        // It has just ended.
      }
    }
    await pause(limits.pollMs);
  }
}

async function processIds(): Promise<number[]> {
  return (await fs.readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
}

function processesOf(ids: readonly number[], folder: string): number[] {
  const mark = `${OWNER}=${folder}`;
  return ids.filter((id) => {
    try {
      return readFileSync(`/proc/${id}/environ`, 'utf8').split('\0').includes(mark);
    } catch {
      return false; // it has ended, or is another user's
    }
  });
}
