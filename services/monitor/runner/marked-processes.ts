// The processes of one run, found by the mark in their environment: they inherit it, whatever they fork and however they
// call themselves. Only what clears its environment on purpose escapes; namespaces and control groups have that too.
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { runnerLimits } from '../limits.ts';

export const MARK = 'MIM_CHECK_RUN';

export interface MarkedProcess {
  pid: number;
  residentBytes: number;
}

const PAGE_BYTES = 4096;

/** Running ones; zombies are none. What may not be read is not ours. */
export async function markedProcesses(runId: string): Promise<MarkedProcess[]> {
  const mark = Buffer.from(`${MARK}=${runId}\0`);
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(pids.map((pid) => marked(pid, mark)));
  return found.filter((each) => each !== null);
}

async function marked(pid: number, mark: Buffer): Promise<MarkedProcess | null> {
  try {
    const environment = await readFile(`/proc/${pid}/environ`);
    const at = environment.indexOf(mark);
    if (at !== 0 && (at < 0 || environment[at - 1] !== 0)) return null;
    const pages = (await readFile(`/proc/${pid}/statm`, 'latin1')).split(' ')[1];
    return { pid, residentBytes: Number(pages) * PAGE_BYTES };
  } catch {
    return null; // it has just ended, or is another user's
  }
}

/** Kills them until there are none. The pids that are left: they are in the kernel, and end when it lets them. */
export async function killMarked(runId: string): Promise<number[]> {
  let left: MarkedProcess[] = [];
  let seenNone = 0;
  for (let i = 0; i < runnerLimits.killTimesMax; i += 1) {
    left = await markedProcesses(runId);
    for (const { pid } of left) killIfThere(pid);
    // One that is just becoming another program has no environment for a moment.
    seenNone = left.length === 0 ? seenNone + 1 : 0;
    if (seenNone === 2) return [];
    await pause(left.length === 0 ? runnerLimits.killAgainMs / 2 : runnerLimits.killAgainMs);
  }
  return left.map(({ pid }) => pid);
}

export function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
