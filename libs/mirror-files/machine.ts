// What this machine has for reading file systems, asked for when it is needed. Folders are parameters, so that tests
// can show another machine.
import { accessSync, constants, readFileSync, readdirSync } from 'node:fs';
import { delimiter } from 'node:path';
import { MidmirrorError } from '@midmirror/basis';

/** Programs by what they are called here, and the Debian and Ubuntu packages that have them. */
const PACKAGES = {
  nbdfuse: 'nbdfuse',
  fusermount3: 'fuse3',
  losetup: 'mount',
  mount: 'mount',
  umount: 'mount',
  'nbd-client': 'nbd-client',
  modprobe: 'kmod',
  prlimit: 'util-linux',
  debugfs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  '7z': '7zip',
} as const;

export type Program = keyof typeof PACKAGES;

/** Other names of the same. */
const NAMES: Partial<Record<Program, readonly string[]>> = { '7z': ['7zz', '7z'] };
const ADMINISTRATORS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'];

export interface Machine {
  readonly isRoot: boolean;
  /** FUSE can be used by this process. */
  readonly hasFuse: boolean;
  readonly deviceFolder: string;
  /** As /sys/block. */
  readonly blockFolder: string;
  /** Its path, or null. */
  find(program: Program): string | null;
  /** The kernel has this file system built in or loaded. */
  kernelHas(driver: string): boolean;
}

export interface MachineOptions {
  /** As PATH. */
  path?: string;
  deviceFolder?: string;
  blockFolder?: string;
}

export function thisMachine(options: MachineOptions = {}): Machine {
  const { path = process.env['PATH'] ?? '', deviceFolder = '/dev', blockFolder = '/sys/block' } = options;
  const folders = [...path.split(delimiter).filter((folder) => folder !== ''), ...ADMINISTRATORS];
  return {
    isRoot: process.getuid?.() === 0,
    hasFuse: allows('/dev/fuse', constants.R_OK | constants.W_OK),
    deviceFolder,
    blockFolder,
    find(program) {
      for (const name of NAMES[program] ?? [program])
        for (const folder of folders)
          if (allows(`${folder}/${name}`, constants.X_OK)) return `${folder}/${name}`;
      return null;
    },
    kernelHas: (driver) => new RegExp(`\\t${driver}$`, 'm').test(readFileSync('/proc/filesystems', 'utf8')),
  };
}

/** What to say of a program that is not there. */
export function missing(program: Program): string {
  return `${program} is missing (install ${PACKAGES[program]})`;
}

export function required(machine: Machine, program: Program): string {
  const path = machine.find(program);
  if (path === null)
    throw new MidmirrorError('io', `${program} is needed and not installed`, {
      hint: `on Debian and Ubuntu: apt install ${PACKAGES[program]}`,
    });
  return path;
}

/** The kernel's network block devices, in the order of their numbers; none when it has no such client. */
export function nbdDevices({ blockFolder }: Machine): string[] {
  try {
    return readdirSync(blockFolder)
      .filter((name) => /^nbd\d+$/.test(name))
      .sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)));
  } catch {
    return [];
  }
}

function allows(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
