// The programs of our own kinds: TypeScript that Node runs in the check's process, told of its settings by its environment.
import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CheckPlan } from '../runner/check-plan.ts';
import type { CheckedMoment } from './kind.ts';

/** `file`: beside the caller, whose `import.meta.url` is `base`. */
export function ownProgram(
  file: string,
  base: string,
  settings: object,
): Pick<CheckPlan, 'program' | 'args' | 'environment'> {
  return {
    program: process.execPath,
    args: ['--disable-warning=ExperimentalWarning', fileURLToPath(new URL(file, base))],
    environment: { MIM_CHECK_SETTINGS: JSON.stringify(settings), ...compiledBefore() },
  };
}

/** Types taken off and code compiled once, not for each probe: most of the time of a small one. */
function compiledBefore(): Record<string, string> {
  const folder = getCompileCacheDir();
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: dirname(folder) };
}

export function momentEnvironment({ volume, check, seq, time }: CheckedMoment): Record<string, string> {
  return {
    MIM_CHECK_VOLUME: volume,
    MIM_CHECK_NAME: check,
    MIM_CHECK_POINT: `seq:${seq}`,
    MIM_CHECK_SEQ: String(seq),
    MIM_CHECK_TIME: time,
  };
}
