// Takes a FUSE mount away that somebody may hold open for a moment yet: a loop device that is going, or another process's
// namespace with a copy of each mount, as checks have while they start.
import { execFile } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';

const MS_MAX = 10_000;

/** Rejects when it is held for longer than that. Does not wait with the loop: this process may serve the disk. */
export async function unmountFuse(point: string): Promise<void> {
  for (const untilMs = Date.now() + MS_MAX; ; await pause(20)) {
    const refused = await fusermount('-u', point);
    if (refused === null || /not found|not mounted/.test(refused)) return;
    if (Date.now() < untilMs) continue;
    await fusermount('-uz', point);
    throw new Error(`${point} is not unmounted: ${refused}`);
  }
}

/** Null: it has done it. */
function fusermount(how: string, point: string): Promise<string | null> {
  return new Promise((resolve) => {
    execFile('fusermount3', [how, point], (error, _said, complaint) =>
      resolve(error === null ? null : complaint || error.message),
    );
  });
}
