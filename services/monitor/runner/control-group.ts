// Control groups of a run, without systemd: memory and number of processes of all that it starts, and a way to kill all of
// it. Version 2 where this process's group has the controllers to give, else version 1.
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { runnerLimits } from '../limits.ts';
import { killIfThere } from './marked-processes.ts';

/** Where groups can be made: with version 2 both are the same folder. Null: not on this machine, or not allowed. */
export interface GroupPlaces {
  version: 1 | 2;
  memory: string | null;
  processes: string | null;
}

const PREFIX = 'midmirror-check-';

/** Tries it out: only a group that was made counts. */
export function findGroupPlaces(): GroupPlaces {
  const none: GroupPlaces = { version: 2, memory: null, processes: null };
  try {
    const own = readFileSync('/proc/self/cgroup', 'latin1');
    const mounts = readFileSync('/proc/self/mountinfo', 'latin1');
    const unified = placeOf(mounts, own, null);
    if (unified !== null && hasControllers(unified))
      return { version: 2, memory: unified, processes: unified };
    return {
      version: 1,
      memory: usable(placeOf(mounts, own, 'memory'), 'memory.limit_in_bytes'),
      processes: usable(placeOf(mounts, own, 'pids'), 'pids.max'),
    };
  } catch {
    return none;
  }
}

/** The folder of this process's own group. `controller` null: of version 2. */
function placeOf(mounts: string, own: string, controller: string | null): string | null {
  const pattern =
    controller === null ? /^0::(.*)$/m : new RegExp(`^\\d+:(?:[^:]*,)?${controller}(?:,[^:]*)?:(.*)$`, 'm');
  const path = pattern.exec(own)?.[1];
  if (path === undefined) return null;
  for (const line of mounts.split('\n')) {
    const [before, after] = line.split(' - ');
    const [type, , options] = (after ?? '').split(' ');
    const [, , , root, mounted] = (before ?? '').split(' ');
    if (type !== (controller === null ? 'cgroup2' : 'cgroup') || root === undefined || mounted === undefined)
      continue;
    if (controller !== null && !(options ?? '').split(',').includes(controller)) continue;
    if (root !== '/' && path !== root && !path.startsWith(`${root}/`)) continue;
    const folder = `${mounted}${root === '/' ? path : path.slice(root.length)}`.replace(/\/+$/, '');
    if (existsSync(`${folder}/cgroup.procs`)) return folder;
  }
  return null;
}

function hasControllers(folder: string): boolean {
  try {
    writeFileSync(`${folder}/cgroup.subtree_control`, '+memory +pids');
  } catch {
    // They may be given already; a group with processes of its own can't give any.
  }
  return usable(folder, 'memory.max') !== null && usable(folder, 'pids.max') !== null;
}

function usable(folder: string | null, file: string): string | null {
  if (folder === null) return null;
  const trial = `${folder}/${PREFIX}trial-${process.pid}`;
  try {
    mkdirSync(trial);
    try {
      writeFileSync(`${trial}/${file}`, file === 'pids.max' ? '64' : String(1 << 30));
      return folder;
    } finally {
      rmdirSync(trial);
    }
  } catch {
    return null;
  }
}

export interface GroupLimits {
  memoryBytesMax: number;
  processesMax: number;
}

export class ControlGroup {
  readonly #version: 1 | 2;
  readonly #memory: string | null;
  readonly #processes: string | null;

  constructor({ version, memory, processes }: GroupPlaces, runId: string) {
    this.#version = version;
    this.#memory = memory === null ? null : `${memory}/${PREFIX}${runId}`;
    this.#processes = processes === null ? null : `${processes}/${PREFIX}${runId}`;
  }

  get folders(): string[] {
    return [...new Set([this.#memory, this.#processes])].filter((folder) => folder !== null);
  }

  make({ memoryBytesMax, processesMax }: GroupLimits): void {
    for (const folder of this.folders) mkdirSync(folder);
    if (this.#processes !== null) writeFileSync(`${this.#processes}/pids.max`, String(processesMax));
    if (this.#memory === null) return;
    const second = this.#version === 2;
    writeFileSync(
      `${this.#memory}/${second ? 'memory.max' : 'memory.limit_in_bytes'}`,
      String(memoryBytesMax),
    );
    // Swap is not a way round it; a machine without swap has no such file.
    for (const [file, value] of second
      ? [
          ['memory.swap.max', '0'],
          ['memory.oom.group', '1'],
        ]
      : [['memory.memsw.limit_in_bytes', String(memoryBytesMax)]])
      if (existsSync(`${this.#memory}/${file}`)) writeFileSync(`${this.#memory}/${file}`, value!);
  }

  /** Whether any of its processes was killed for want of memory. */
  wasOutOfMemory(): boolean {
    const text = this.#read(this.#memory, this.#version === 2 ? 'memory.events' : 'memory.oom_control');
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0) > 0;
  }

  /** Whether it was refused a process. */
  wasOutOfProcesses(): boolean {
    return Number(/^max (\d+)$/m.exec(this.#read(this.#processes, 'pids.events'))?.[1] ?? 0) > 0;
  }

  /** Null: not known. */
  memoryBytesPeak(): number | null {
    const text = this.#read(this.#memory, this.#version === 2 ? 'memory.peak' : 'memory.max_usage_in_bytes');
    return text === '' ? null : Number(text);
  }

  #read(folder: string | null, file: string): string {
    try {
      return folder === null ? '' : readFileSync(`${folder}/${file}`, 'latin1');
    } catch {
      return ''; // older kernels have no memory.peak
    }
  }
}

/** Kills what is in them and removes them; also those of an earlier process. False: something is still in one. */
export async function removeGroups(folders: readonly string[]): Promise<boolean> {
  let removed = true;
  for (const folder of folders) removed = (await removeGroup(folder)) && removed;
  return removed;
}

async function removeGroup(folder: string): Promise<boolean> {
  if (!folder.includes(`/${PREFIX}`)) return true;
  for (let i = 0; i < runnerLimits.killTimesMax; i += 1) {
    if (!existsSync(folder)) return true;
    for (const pid of pidsIn(folder)) killIfThere(pid);
    try {
      rmdirSync(folder);
      return true;
    } catch {
      await pause(runnerLimits.killAgainMs); // busy until the last has gone
    }
  }
  return false;
}

function pidsIn(folder: string): number[] {
  try {
    return readFileSync(`${folder}/cgroup.procs`, 'latin1').split('\n').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
