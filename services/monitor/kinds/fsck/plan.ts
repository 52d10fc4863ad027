// The file systems of a disk, each by its own checker, after its journal was replayed: a mirror of a moment in mid-write
// is what a power loss would have left.
import type { CheckPlan } from '../../runner/check-plan.ts';
import { diskLimits } from '../../limits.ts';
import type { CheckKind } from '../kind.ts';
import { momentEnvironment, ownProgram } from '../own-program.ts';
import { type Given, readFlag, readNumber, readObject } from '../settings.ts';
import { versionOf } from '../versions.ts';

export interface FsckSettings {
  /** Of this partition only; null: of all. */
  partition: number | null;
  /** Fewer file systems than these are bad: their superblocks are gone. 0: nothing there can't be told. */
  fileSystemsMin: number;
  /** btrfs: also each block of data against its checksum. */
  data: boolean;
  timeSeconds: number;
}

/** What the program gets. */
export interface FsckTask extends FsckSettings {
  scratch: string;
  /** One of the two. */
  uri: string | null;
  file: string | null;
  writable: boolean;
}

const KIND = 'fsck';
/** xfs_repair takes what it finds, and more on large disks. */
const MEMORY_BYTES_MAX = 2 * 2 ** 30;
const PROGRAMS: readonly (readonly [string, string])[] = [
  ['e2fsck', '-V'],
  ['xfs_repair', '-V'],
  ['btrfs', '--version'],
  ['fsck.vfat', '--help'],
];

export const fsck: CheckKind<FsckSettings> = {
  name: KIND,

  readSettings(given) {
    const all: Given = readObject(KIND, given, ['partition', 'fileSystemsMin', 'data', 'timeSeconds']);
    return {
      partition: readNumber(KIND, all, 'partition', { min: 1, max: 256 }) ?? null,
      fileSystemsMin: readNumber(KIND, all, 'fileSystemsMin', { min: 0, max: 256 }) ?? 0,
      data: readFlag(KIND, all, 'data') ?? false,
      timeSeconds: readNumber(KIND, all, 'timeSeconds', { min: 1, max: 7 * 86_400 }) ?? 3600,
    };
  },

  need: () => 'writable-disk',

  plan(settings, { moment, mirror, file, scratch }): CheckPlan {
    const writable = (file ?? mirror)?.writable ?? false;
    const reached = { uri: file === undefined ? (mirror?.uri ?? null) : null, file: file?.path ?? null };
    const task: FsckTask = { ...settings, ...reached, writable, scratch };
    const program = ownProgram('./main.ts', import.meta.url, task);
    return {
      ...program,
      environment: { ...program.environment, ...momentEnvironment(moment) },
      limits: {
        timeMsMax: settings.timeSeconds * 1000,
        memoryBytesMax: MEMORY_BYTES_MAX,
        ...diskLimits,
      },
    };
  },

  goesBy: async () =>
    (await Promise.all(PROGRAMS.map(([program, flag]) => versionOf(program, [flag])))).join('; '),
  steady: () => true,
};
