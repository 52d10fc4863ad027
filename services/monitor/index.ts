export {
  type BisectEnd,
  type BisectQuestion,
  type BisectState,
  nextProbes,
  noteVerdict,
  notMonotone,
  probesMade,
  startBisect,
} from './core/bisect.ts';
export {
  type ClosedSnapshot,
  type Due,
  type DueState,
  dueNow,
  nextDueMs,
  type Schedule,
  startSchedule,
} from './core/due.ts';
export { type EntropyFacts, type EntropyVerdict, EntropyWatch } from './core/entropy.ts';
export { type ByteRange, overlaps, ReadSet } from './core/read-set.ts';
export { type EarlierVerdict, holdsFor, identicalGroups, nearestVerdicts, type Probe } from './core/reuse.ts';
export type { Verdict } from './core/verdict.ts';
export {
  nextOfWalk,
  noteWalk,
  startWalk,
  type WalkQuestion,
  type WalkState,
  type WalkStep,
} from './core/walk.ts';
export { type KindName, kindNames, type ReadyCheck, readyCheck } from './kinds/all-kinds.ts';
export type { CheckedMoment, CheckInput, Need } from './kinds/kind.ts';
export { type ProbeResult, probe } from './kinds/probe.ts';
export { bisectLimits, type CheckLimits, checkLimits, type EntropyLimits, entropyLimits } from './limits.ts';
export { knownVerdict } from './loops/known-verdict.ts';
export { runSearch, type SearchPorts } from './loops/search-loop.ts';
export { Slots } from './loops/slots.ts';
export { runWalk, type WalkPorts } from './loops/walk-loop.ts';
export { cleanUpRuns } from './runner/begun-runs.ts';
export type { CheckResult } from './runner/check-plan.ts';
export { findIsolation, type Isolation } from './runner/isolation.ts';
