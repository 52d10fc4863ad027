// What a run leaves on the machine while it goes on: a folder of its own under the state directory, with a note of what
// else there is. After a crash of the monitor the next one finds the notes and undoes it all. One monitor at a time has
// a state directory; who starts it sees to that.
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { MidmirrorError, messageOf } from '@midmirror/basis';
import { ControlGroup, type GroupPlaces, removeGroups } from './control-group.ts';
import { killMarked } from './marked-processes.ts';

export interface BegunRun {
  readonly id: string;
  readonly folder: string;
  /** The check's own directory. */
  readonly scratch: string;
  readonly group: ControlGroup;
  /** Kills what is left of it and removes all of it. The reasons why something could not be. */
  end(): Promise<string[]>;
}

const NOTE = 'begun.json';
/** Short: sockets lie below it, and their paths are. */
const RUN_NAME = /^[0-9a-f]{12}$/;

/** Noted before anything is made that would have to be undone. */
export function beginRun(stateDirectory: string, places: GroupPlaces): BegunRun {
  const id = randomBytes(6).toString('hex');
  const group = new ControlGroup(places, id);
  let folder: string;
  let scratch: string;
  try {
    mkdirSync(stateDirectory, { recursive: true, mode: 0o711 });
    // Mounts are listed by their real paths.
    folder = `${realpathSync(stateDirectory)}/${id}`;
    scratch = `${folder}/scratch`;
    mkdirSync(folder, { mode: 0o711 });
    writeFileSync(`${folder}/${NOTE}`, JSON.stringify({ format: 1, groups: group.folders }));
    mkdirSync(scratch, { mode: 0o700 });
  } catch (cause) {
    throw new MidmirrorError('io', `a check can't be begun in ${stateDirectory}: ${messageOf(cause)}`, {
      hint: 'the state directory must be one that the monitor may write',
      cause,
    });
  }
  return { id, folder, scratch, group, end: () => undo(id, folder, group.folders) };
}

/** Undoes what earlier processes have left. What was found, for the log: one line for each run. */
export async function cleanUpRuns(stateDirectory: string): Promise<string[]> {
  const said: string[] = [];
  for (const id of readdirIfThere(stateDirectory)) {
    if (!RUN_NAME.test(id)) continue;
    const folder = `${realpathSync(stateDirectory)}/${id}`;
    const left = await undo(id, folder, groupsOf(folder));
    said.push(
      left.length === 0
        ? `a check that had been begun was cleaned up (${id})`
        : `a check that had been begun could not be cleaned up (${id}): ${left.join('; ')}`,
    );
  }
  return said;
}

async function undo(id: string, folder: string, groups: readonly string[]): Promise<string[]> {
  const left: string[] = [];
  const alive = await killMarked(id);
  if (alive.length > 0) left.push(`processes ${alive.join(', ')} do not end`);
  if (!(await removeGroups(groups))) left.push(`control groups ${groups.join(', ')} are busy`);
  // Never delete through a mount: those are the mirror's files.
  for (const mounted of mountsBelow(folder)) {
    try {
      execFileSync('umount', ['--', mounted], { stdio: ['ignore', 'ignore', 'pipe'] });
    } catch (error) {
      left.push(`${mounted} is mounted: ${messageOf(error)}`);
    }
  }
  if (mountsBelow(folder).length > 0) return left;
  try {
    removeFolder(folder);
  } catch (error) {
    left.push(`${folder}: ${messageOf(error)}`);
  }
  return left;
}

/** What a check has made is ours, also where it has taken our right to it away. */
function removeFolder(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  } catch (error) {
    if (!['EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    execFileSync('chmod', ['-R', 'u+rwX', '--', folder], { stdio: ['ignore', 'ignore', 'pipe'] });
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Deepest first. */
function mountsBelow(folder: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal) => octalCharacter(octal)))
    .filter((mounted) => mounted.startsWith(`${folder}/`))
    .reverse();
}

function octalCharacter(digits: string): string {
  return String.fromCharCode(Number.parseInt(digits, 8));
}

function groupsOf(folder: string): string[] {
  try {
    const { groups } = JSON.parse(readFileSync(`${folder}/${NOTE}`, 'utf8')) as { groups?: unknown };
    return Array.isArray(groups) ? groups.filter((each) => typeof each === 'string') : [];
  } catch {
    return []; // killed before the note was whole: nothing else had been made
  }
}

function readdirIfThere(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
