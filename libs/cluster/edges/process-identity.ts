// Which process this is, and whether another one of this machine is still there, as /proc tells.
import { readFileSync, readlinkSync } from 'node:fs';
import type { ProcessIdentity } from '../core/entries.ts';

/** Null where there is no /proc: then only silence tells that a process is gone. */
export function ownProcess(): ProcessIdentity | null {
  const place = ownPlace();
  const startTicks = statOf(process.pid)?.startTicks;
  return place === null || startTicks === undefined ? null : { ...place, pid: process.pid, startTicks };
}

/** Never true by mistake: what can't be seen from here may be there. */
export function isGone(other: ProcessIdentity, own: ProcessIdentity): boolean {
  if (other.bootId !== own.bootId || other.pidNamespace !== own.pidNamespace) return false;
  try {
    process.kill(other.pid, 0);
  } catch (error) {
    // Not ESRCH: another user's.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return true;
  }
  const stat = statOf(other.pid);
  if (stat === null) return false;
  return stat.startTicks !== other.startTicks || stat.state === 'Z' || stat.state === 'X';
}

function ownPlace(): { bootId: string; pidNamespace: string } | null {
  try {
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return { bootId, pidNamespace: readlinkSync('/proc/self/ns/pid') };
  } catch {
    return null;
  }
}

/** Null: not there, or not to be seen. */
function statOf(pid: number): { state: string; startTicks: string } | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name of the program, in parentheses, may contain anything.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const [state, startTicks] = [fields[0], fields[19]];
    return state === undefined || startTicks === undefined ? null : { state, startTicks };
  } catch {
    return null;
  }
}
