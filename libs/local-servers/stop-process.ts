// Stops a process for a while, as a worst day does. The signal alone returns before its threads have heard of it.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const POLL_MS = 2;

/** SIGSTOP; resolves when none of its threads runs any more. SIGCONT lets it go on. */
export async function stopProcess(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  while (!standsStill(pid)) await pause(POLL_MS);
}

function standsStill(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    const text = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).startsWith('T');
  });
}
