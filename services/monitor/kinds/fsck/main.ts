// The program of the kind `fsck`: finds the file systems, lets each one's checker look at it, and ends with the worst.
import { messageOf } from '@midmirror/basis';
import { indent, say } from '../tool.ts';
import { type Checked, checkers } from './checkers.ts';
import { type FoundFileSystem, findFileSystems } from './find-file-systems.ts';
import type { FsckTask } from './plan.ts';
import { type ReachedDisk, reachDisk, sizeOf } from './reach-disk.ts';

/** Nothing in them can be inconsistent. */
const WITHOUT_CHECK = ['swap', 'swsuspend', 'BIOS'];

const task = JSON.parse(process.env['MIM_CHECK_SETTINGS'] ?? '') as FsckTask;
let status: number;
try {
  status = await checkDisk();
} catch (error) {
  say(messageOf(error));
  status = 125;
}
process.exit(status);

async function checkDisk(): Promise<number> {
  const disk = await reachDisk(task, null);
  const sizeBytes = sizeOf(disk.path);
  const all = findFileSystems(disk.path, sizeBytes, task.partition);
  const verdicts: Checked['verdict'][] = [];
  for (const found of all) {
    const checked = await checkOne(found, disk, sizeBytes);
    if (checked === null) continue;
    say(`${nameOf(found)}: ${checked.verdict === 'cannot-tell' ? 'can not tell' : checked.verdict}`);
    if (checked.said !== '') say(indent(checked.said));
    verdicts.push(checked.verdict);
  }
  if (verdicts.length < task.fileSystemsMin) {
    say(`${verdicts.length} file systems were found; there must be ${task.fileSystemsMin}`);
    return 1;
  }
  if (verdicts.length === 0) say('no file system that can be checked was found');
  if (verdicts.includes('bad')) return 1;
  return verdicts.length === 0 || verdicts.includes('cannot-tell') ? 125 : 0;
}

/** Null: there is nothing to check. */
async function checkOne(
  found: FoundFileSystem,
  disk: ReachedDisk,
  sizeBytes: number,
): Promise<Checked | null> {
  const { type, startBytes, lengthBytes } = found;
  if (type === null || WITHOUT_CHECK.includes(type)) {
    say(`${nameOf(found)}: passed over`);
    return null;
  }
  const check = checkers[type];
  if (check === undefined) {
    say(`${nameOf(found)}: passed over, there is no checker for it here`);
    return null;
  }
  const whole = startBytes === 0 && lengthBytes === sizeBytes;
  return check(whole ? disk : await reachDisk(task, { startBytes, lengthBytes }), {
    data: task.data,
    scratch: task.scratch,
  });
}

function nameOf({ partition, type, label }: FoundFileSystem): string {
  const where = partition === 0 ? 'the whole disk' : `partition ${partition}`;
  return `${where}, ${type ?? 'nothing known'}${label === null ? '' : ` ${JSON.stringify(label)}`}`;
}
