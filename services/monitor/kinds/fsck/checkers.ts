// Each file system's checker: how its journal is replayed, how it is run, and what its answer means. None of them repairs.
import { mkdirSync } from 'node:fs';
import { runTool, type ToolEnd } from '../tool.ts';
import type { ReachedDisk } from './reach-disk.ts';

export interface Checked {
  verdict: 'good' | 'bad' | 'cannot-tell';
  /** What was done and said, for the verdict's output. */
  said: string;
}

export type Checker = (disk: ReachedDisk, options: { data: boolean; scratch: string }) => Checked;

export const checkers: Readonly<Record<string, Checker>> = {
  ext2: checkExt,
  ext3: checkExt,
  ext4: checkExt,
  xfs: checkXfs,
  btrfs: checkBtrfs,
  vfat: checkVfat,
};

/** Of e2fsck: errors left uncorrected; operational error (the rest can't be told apart from the machine's fault). */
const E2FSCK_LEFT = 4;
const E2FSCK_OPERATION = 8;

function checkExt(disk: ReachedDisk, { scratch }: { scratch: string }): Checked {
  const facts = runTool('dumpe2fs', ['-h', disk.path]);
  if (facts === null) return missing('dumpe2fs', 'e2fsprogs');
  const needsReplay = /^Filesystem features:.*\bneeds_recovery\b/m.test(facts.answer);
  if (!needsReplay) return runE2fsck(disk.path, '');
  if (!disk.writable)
    return cannotTell('its journal is to be replayed, and this is no clone that could be written to');
  // The kernel does it in place; e2fsck writes single bytes, so through FUSE only to a copy.
  if (disk.fuse && mountOnce('ext4', disk.path, scratch).done)
    return runE2fsck(disk.path, 'journal replayed');
  const whole = disk.fuse ? disk.copy() : disk;
  // Also what was deleted and still open; nothing else that a check would find.
  const replayed = runTool('e2fsck', ['-E', 'journal_only', '-y', whole.path]);
  if (replayed === null) return missing('e2fsck', 'e2fsprogs');
  if (couldNotRun(replayed) || has(replayed, E2FSCK_OPERATION)) return cannotTell(replayed.said);
  if (has(replayed, E2FSCK_LEFT)) return { verdict: 'bad', said: replayed.said };
  return runE2fsck(whole.path, replayed.said);
}

function runE2fsck(path: string, before: string): Checked {
  const end = runTool('e2fsck', ['-f', '-n', path]);
  if (end === null) return missing('e2fsck', 'e2fsprogs');
  const said = [before, end.said].filter((text) => text !== '').join('\n');
  if (end.status === 0) return { verdict: 'good', said };
  if (couldNotRun(end)) return cannotTell(said);
  // blkid has found an ext here: a superblock that e2fsck can't use is damage, not another disk.
  const noSuperblock =
    /superblock (?:is corrupt|could not be read)|Superblock invalid|Bad magic number/i.test(end.said);
  const damaged = has(end, E2FSCK_LEFT) || (has(end, E2FSCK_OPERATION) && noSuperblock);
  return damaged ? { verdict: 'bad', said } : cannotTell(said);
}

function has({ status }: ToolEnd, bit: number): boolean {
  return status !== null && (status & bit) !== 0;
}

/** Killed, called wrongly, cancelled, or without its libraries. */
function couldNotRun({ status }: ToolEnd): boolean {
  return status === null || status >= 16;
}

function checkXfs(disk: ReachedDisk, { scratch }: { scratch: string }): Checked {
  const log = runTool('xfs_logprint', ['-t', disk.path]);
  if (log === null) return missing('xfs_logprint', 'xfsprogs');
  if (!/state: <CLEAN>/.test(log.said)) {
    if (!disk.writable)
      return cannotTell('its log is to be replayed, and this is no clone that could be written to');
    // Only the kernel replays an XFS log.
    const { done, damaged, said } = mountOnce('xfs', disk.path, scratch);
    if (damaged) return { verdict: 'bad', said };
    if (!done) return cannotTell(said);
  }
  const end = runTool('xfs_repair', ['-f', '-n', disk.path]);
  if (end === null) return missing('xfs_repair', 'xfsprogs');
  if (end.status === 0) return { verdict: 'good', said: end.said };
  // 1: corruption was found; or it could not begin, or not go on.
  const went = /^Phase 1 /m.test(end.said) && !/fatal error/i.test(end.said);
  return end.status === 1 && went ? { verdict: 'bad', said: end.said } : cannotTell(end.said);
}

/** The kernel replays the journal. `damaged`: it has looked, and will not have it. Else it is about this machine. */
function mountOnce(
  type: 'ext4' | 'xfs',
  path: string,
  scratch: string,
): { done: boolean; damaged: boolean; said: string } {
  const folder = `${scratch}/replay`;
  mkdirSync(folder, { recursive: true });
  // An ext4 may ask for the machine to panic at its first error.
  const own = { ext4: ['errors=remount-ro', 'noinit_itable'], xfs: ['nouuid'] }[type];
  const options = ['loop', 'rw', 'nosuid', 'nodev', 'noexec', ...own];
  const mounted = runTool('mount', ['-t', type, '-o', options.join(','), path, folder]);
  const said = `its journal can't be replayed: ${mounted?.said ?? 'mount is not on this machine'}`;
  if (mounted?.status !== 0)
    return { done: false, damaged: /structure needs cleaning/i.test(mounted?.said ?? ''), said };
  const unmounted = runTool('umount', [folder]);
  return unmounted?.status === 0
    ? { done: true, damaged: false, said: '' }
    : { done: false, damaged: false, said: `it can't be unmounted: ${unmounted?.said}` };
}

/** The tree is whole at each commit; a log tree is not needed for that, and not looked at. */
function checkBtrfs(disk: ReachedDisk, { data }: { data: boolean }): Checked {
  const end = runTool('btrfs', ['check', '--readonly', ...(data ? ['--check-data-csum'] : []), disk.path]);
  if (end === null) return missing('btrfs', 'btrfs-progs');
  if (end.status === 0) return { verdict: 'good', said: end.said };
  // Its status is 1 for all; errors of the device are the doorway's to tell.
  const went = /^(?:Opening filesystem|\[1\/7\]|Checking filesystem)/m.test(end.said);
  return end.status === 1 && went && !/Cannot allocate memory/i.test(end.said)
    ? { verdict: 'bad', said: end.said }
    : cannotTell(end.said);
}

/** Said of each FAT in use: its dirty flag is up, and its count of free clusters is behind. */
const FAT_IN_USE: readonly RegExp[] = [
  /^fsck\.fat /,
  /Dirty bit is set\. Fs was not properly unmounted/,
  /Automatically removing dirty bit/,
  /There are differences between boot sector and its backup/,
  /This is mostly harmless\. Differences: \(offset:original\/backup\)/,
  /^\s*65:[0-9a-f]{2}\/[0-9a-f]{2}\s*$/,
  /Not automatically fixing this/,
  /Free cluster summary (?:wrong|uninitialized)/,
  /Auto-correcting/,
  /Leaving filesystem unchanged/,
  /\d+ files?, \d+\/\d+ clusters/,
];

function checkVfat(disk: ReachedDisk): Checked {
  const end = runTool('fsck.vfat', ['-n', disk.path]);
  if (end === null) return missing('fsck.vfat', 'dosfstools');
  if (end.status === 0) return { verdict: 'good', said: end.said };
  if (end.status !== 1) return cannotTell(end.said);
  const found = end.said
    .split('\n')
    .filter((line) => line.trim() !== '' && !FAT_IN_USE.some((known) => known.test(line)));
  return found.length === 0 ? { verdict: 'good', said: end.said } : { verdict: 'bad', said: end.said };
}

function missing(program: string, debianPackage: string): Checked {
  return cannotTell(`${program} is not on this machine; install ${debianPackage}`);
}

function cannotTell(said: string): Checked {
  return { verdict: 'cannot-tell', said };
}
