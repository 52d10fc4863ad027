// A file system as its owner would find it after a power loss, where it can't be mounted: its journal is replayed by e2fsck in
// a copy. What has no journal, or nothing in it, is as it lies on the disk.
import { promises as fs } from 'node:fs';
import { MidmirrorError } from '@midmirror/basis';
import type { FileSystem } from '../layout/layout.ts';
import { type Machine, missing, required } from '../machine.ts';
import { DISK, failed, runReader } from '../programs.ts';
import { type DiskPlace, type PartFile, partCopy, readerUser } from './disk-file.ts';

/** Of e2fsck: nothing was wrong, or it was put right. */
const E2FSCK_DONE: readonly (number | null)[] = [0, 1];

/** Whether changes may be in its journal that are not in place. */
export function hasToReplay({ kind, unclean }: FileSystem): boolean {
  return kind !== 'vfat' && kind !== 'exfat' && unclean !== false;
}

/** Null when nothing is to be replayed, or it can be here; else why not. */
export function whyNoReplay(machine: Machine, fileSystem: FileSystem): string | null {
  if (!hasToReplay(fileSystem)) return null;
  const { kind } = fileSystem;
  if (!kind.startsWith('ext')) return `the journal of ${kind} can only be replayed by mounting it`;
  return machine.find('e2fsck') === null ? missing('e2fsck') : null;
}

/** The program sees a disk that may be hostile, as those that read it then. */
export async function replayedPart(place: DiskPlace, fileSystem: FileSystem): Promise<PartFile> {
  const { machine } = place;
  const path = await partCopy(place, fileSystem);
  const user = readerUser(machine);
  const file = await fs.open(path, 'r+');
  try {
    const program = required(machine, 'e2fsck');
    const reader = { program, prlimit: machine.find('prlimit'), disk: file.fd, user };
    const args = ['-E', 'journal_only', '-y', DISK];
    const { status, stdout, stderr } = await runReader(reader, args);
    if (!E2FSCK_DONE.includes(status))
      throw new MidmirrorError(
        'corrupt',
        `its journal can't be replayed: ${failed(program, status, `${stderr}${stdout.toString()}`)}`,
      );
  } catch (error) {
    await file.close();
    throw error;
  }
  return { disk: file.fd, user, closeFile: () => file.close(), closeServer: async () => {} };
}
