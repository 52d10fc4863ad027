// What /readyz and /healthz of a process say.
import assert from 'node:assert/strict';

export interface Readyz {
  status: number;
  reasons: string[];
  warnings: string[];
}

/** `metrics`: where the process serves its metrics. */
export async function readyz(metrics: string): Promise<Readyz> {
  const answer = await fetch(`${metrics}/readyz`);
  const { ready, reasons, warnings } = (await answer.json()) as Omit<Readyz, 'status'> & { ready: boolean };
  assert.equal(ready, answer.status === 200);
  assert.equal(ready, reasons.length === 0);
  return { status: answer.status, reasons, warnings };
}

export const WELL: Readyz = { status: 200, reasons: [], warnings: [] };
