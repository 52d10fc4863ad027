// Checks that are shell scripts, on a state directory that goes with the test.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { CheckLimits } from '../limits.ts';
import type { CheckPlan } from '../runner/check-plan.ts';

export function shellCheck(script: string, limits: Partial<CheckLimits> = {}): CheckPlan {
  return { program: '/bin/sh', args: ['-c', script], environment: {}, limits };
}

export async function withFolder(act: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/mim-`);
  try {
    await act(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
