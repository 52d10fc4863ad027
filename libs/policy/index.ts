export { nextRunNs } from './cron.ts';
export {
  type Keep,
  type Kept,
  kept,
  keptSnapshots,
  type RetentionCandidate,
  type Rule,
  type SnapshotCandidate,
  tapeKeep,
} from './retention.ts';
export { defaultPolicy, parsePolicy, type VolumePolicy } from './volume-policy.ts';
