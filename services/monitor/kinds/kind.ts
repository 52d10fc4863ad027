// What each kind of check is to the monitor: what it needs of a moment, which settings it takes, and the program it runs.
import type { CheckPlan } from '../runner/check-plan.ts';

/** The moment to be checked, as the check is told of it. */
export interface CheckedMoment {
  volume: string;
  /** Of the check, as the operator calls it. */
  check: string;
  seq: number;
  /** RFC 3339. */
  time: string;
}

/**
 * How the moment may be reached; what a kind needs says which of them must be there. `writable`: what is
 * written, by a journal's replay too, is kept for this check alone and thrown away after it.
 */
export interface CheckInput {
  moment: CheckedMoment;
  /** NBD. The program finds a socket of its own in its place. */
  mirror?: { uri: string; writable: boolean };
  /** A block device or a disk's image on this machine. */
  file?: { path: string; writable: boolean };
  /** Its file system, mounted or copied; partitions in folders of their own, or one alone. */
  files?: { path: string; writable: boolean };
  /** Of what needs the writes before it: where they are gone through from, then each up to the moment itself. NBD. */
  moments?: { uri: string; seq: number; timeMs: number }[];
}

/** What a check looks at, where files are copied out for it. Patterns of path-pattern.ts. */
export interface WantedFiles {
  files: readonly string[];
  /** Symbolic links that are copied as such; the check sees to it that none leads out. Of others nothing is there. */
  links?: readonly string[];
}

export type Need = 'disk' | 'writable-disk' | 'files' | 'writable-files' | 'writes';

/** What a plan is made of: the input after the runner has put its doorway in place. */
export interface PlanInput extends CheckInput {
  scratch: string;
}

export interface CheckKind<Settings> {
  readonly name: string;
  /** Throws `bad-request` naming the setting, what was expected and what to do. */
  readSettings(given: unknown): Settings;
  need(settings: Settings): Need;
  /** Missing, or null: all files. */
  wanted?(settings: Settings): WantedFiles | null;
  plan(settings: Settings, input: PlanInput): CheckPlan;
  /** Programs, with their versions, and data that a verdict goes by beside the mirror; for `holdsFor`. */
  goesBy(settings: Settings): Promise<string>;
  /** What is not there of what it can't do without, in words: nothing is begun by itself then. Null, or no such function: nothing. */
  lacks?(settings: Settings): Promise<string | null>;
  /** False: its verdict may depend on more than the mirror's bytes and what it goes by. */
  steady(settings: Settings): boolean;
}
