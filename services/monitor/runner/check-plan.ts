// What a kind of check asks the runner to run, and what the runner says of it.
import type { Verdict } from '../core/verdict.ts';
import type { CheckLimits } from '../limits.ts';

export interface CheckPlan {
  program: string;
  args: readonly string[];
  /** Beside the runner's own: PATH, HOME, TMPDIR, LANG. Nothing of the monitor's environment is passed on. */
  environment: Readonly<Record<string, string>>;
  /** The folder of another disk's files that it is to look at; no other disk's mount is there for it. */
  keepMounted?: string;
  /** A folder in its directory that was there before it, and stays as it is: counted once. */
  copied?: { path: string; bytes: number; files: number };
  /** What differs from `checkLimits`. */
  limits?: Partial<CheckLimits>;
  /** `read`: root may read all and change nothing that it does not own; for programs that parse what may be hostile. */
  privileges?: 'all' | 'read';
}

export interface CheckResult {
  verdict: Verdict;
  /** In words, for people: why it can't tell, or what the verdict stands on. */
  reason: string;
  /** What the check has said, both outputs in the order they came; bounded. */
  output: string;
  /** All that it has said. */
  outputBytes: number;
  durationMs: number;
  /** Null: it was killed, or never ran. */
  exitStatus: number | null;
  /** Null: not known on this machine. */
  memoryBytesPeak: number | null;
  /** What could not be cleaned up after it; usually nothing. */
  left: readonly string[];
}

/** The status of a check's program and what it means: 0 good, 1 bad, 125 can't tell, as `git bisect run` has it. */
export const ExitStatus = { good: 0, bad: 1, cannotTell: 125 } as const;
