// A moment to check, and probing it with all the isolation that this machine has.
import type { CheckedMoment, CheckInput } from '../kinds/kind.ts';
import { readyCheck } from '../kinds/all-kinds.ts';
import { type ProbeResult, probe } from './probe.ts';
import { findIsolation, type Isolation } from '../runner/isolation.ts';

export const moment: CheckedMoment = { volume: 'db', check: 'mine', seq: 17, time: '2026-11-27T08:00:00Z' };

const found = await findIsolation();

export function probing(
  kind: string,
  settings: unknown,
  input: Omit<CheckInput, 'moment'>,
  folder: string,
  isolation: Isolation = found,
): Promise<ProbeResult> {
  const check = readyCheck(kind, settings);
  return probe(
    check.kind,
    check.settings,
    { moment, ...input },
    { stateDirectory: `${folder}/state`, isolation },
  );
}
